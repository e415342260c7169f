//! Above the root: starts it, and starts it again when it crashed. [`Actors`] is what the composition
//! root holds.
//!
//! It does nothing else, so that there is nothing in it that could crash. With the root go all actors
//! below it; the new root starts those that are still needed from the state.

use crate::{
    Board, Config,
    board::Subject,
    reconcile::Shared,
    root::{Root, RootMessage},
    supervise::Children,
};
use consensus::Ledger;
use model::Clock;
use ractor::{Actor, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use std::{marker::PhantomData, sync::Arc};
use tokio::task::JoinHandle;

/// The running tree.
#[derive(Debug)]
pub struct Actors {
    warden: ActorRef<WardenMessage>,
    join: JoinHandle<()>,
    board: Board,
}

impl Actors {
    /// Starts the tree over `ledger`.
    ///
    /// # Errors
    /// When the root actor does not start.
    pub async fn start<L: Ledger>(
        ledger: L,
        clock: Arc<dyn Clock>,
        config: Config,
    ) -> Result<Self, SpawnErr> {
        let board = Board::default();
        let shared = Shared { ledger, config, board: board.clone(), clock };
        let (warden, join) = Actor::spawn(None, Warden::<L>(PhantomData), shared).await?;
        Ok(Self { warden, join, board })
    }

    /// What every actor last did.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Stops the tree and waits until the root is gone.
    pub async fn stop(self) {
        self.warden.stop(None);
        // An error here means it crashed: it is gone all the same.
        let _ = self.join.await;
    }

    /// Says something to the root.
    #[cfg(test)]
    pub(crate) fn tell(&self, message: RootMessage) {
        let _ = self.warden.cast(WardenMessage::Tell(message));
    }
}

struct Warden<L>(PhantomData<L>);

#[derive(Debug)]
enum WardenMessage {
    /// The root has waited long enough.
    Restart,
    #[cfg(test)]
    Tell(RootMessage),
}

struct WardenState<L> {
    shared: Shared<L>,
    root: Children<(), RootMessage>,
}

impl<L: Ledger> Actor for Warden<L> {
    type Msg = WardenMessage;
    type State = WardenState<L>;
    type Arguments = Shared<L>;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        shared: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let mut state = WardenState { shared, root: Children::new() };
        state.start(&myself).await?;
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            WardenMessage::Restart => {
                if let Err(error) = state.start(&myself).await {
                    let delay = state.root.count(&(), &state.shared.config);
                    state.crashed(&myself, delay, &error.to_string());
                }
            }
            #[cfg(test)]
            WardenMessage::Tell(message) => {
                if let Some(root) = state.root.get(&()) {
                    root.cast(message)?;
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, error) => {
                if let Some(((), delay)) = state.root.crashed(&cell, &state.shared.config) {
                    state.crashed(&myself, delay, &error.to_string());
                }
            }
            SupervisionEvent::ActorTerminated(cell, ..) => state.root.ended(&cell),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(root) = state.root.get(&()) {
            // An error here means it is gone already.
            let _ = root.stop_and_wait(None, None).await;
        }
        Ok(())
    }
}

impl<L: Ledger> WardenState<L> {
    async fn start(&mut self, myself: &ActorRef<WardenMessage>) -> Result<(), SpawnErr> {
        let (root, shared) = (Root::<L>(PhantomData), self.shared.clone());
        let (root, _) = Actor::spawn_linked(None, root, shared, myself.get_cell()).await?;
        self.root.put((), root);
        Ok(())
    }

    fn crashed(&self, myself: &ActorRef<WardenMessage>, delay: std::time::Duration, error: &str) {
        tracing::error!(actor = %Subject::Root, error, delay_ms = delay.as_millis(), "actor crashed, it starts again");
        // Those below went with it.
        self.shared.board.all_down();
        self.shared.board.crashed(&Subject::Root, error);
        myself.send_after(delay, || WardenMessage::Restart);
    }
}
