//! Wake-ups that coalesce. ractor's mailboxes are unbounded, so an actor is sent a wake only when
//! none is waiting: what was touched since gathers here, bounded by the number of names.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

/// What was touched below an actor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched<T: Ord> {
    /// The actor's own subject.
    pub(crate) own: bool,
    /// Everything below it.
    pub(crate) all: bool,
    /// These children.
    pub(crate) children: BTreeSet<T>,
}

impl<T: Ord> Touched<T> {
    /// Everything: after a start, a lost watch or a sweep.
    pub(crate) fn everything() -> Self {
        Self { own: true, all: true, children: BTreeSet::new() }
    }

    fn is_empty(&self) -> bool {
        !self.own && !self.all && self.children.is_empty()
    }
}

/// The shared end of a mailbox.
#[derive(Debug)]
pub(crate) struct Mailbox<T: Ord>(Arc<Mutex<Touched<T>>>);

impl<T: Ord> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Ord> Mailbox<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Touched { own: false, all: false, children: BTreeSet::new() })))
    }

    /// Adds what was touched; true if the mailbox was empty, so that a wake must be sent.
    pub(crate) fn add(&self, more: Touched<T>) -> bool {
        if more.is_empty() {
            return false;
        }
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = held.is_empty();
        held.own |= more.own;
        held.all |= more.all;
        held.children.extend(more.children);
        first
    }

    /// Takes everything gathered.
    pub(crate) fn take(&self) -> Touched<T> {
        let empty = Touched { own: false, all: false, children: BTreeSet::new() };
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_of_many_wakes_is_sent() {
        let mailbox = Mailbox::new();
        let one = |n| Touched { own: false, all: false, children: BTreeSet::from([n]) };
        assert!(mailbox.add(one(1)));
        assert!(!mailbox.add(one(2)));
        assert_eq!(mailbox.take().children, BTreeSet::from([1, 2]));
        assert!(mailbox.add(one(3)), "an emptied mailbox asks for a wake again");
    }

    #[test]
    fn nothing_touched_wakes_nobody() {
        let mailbox = Mailbox::<u8>::new();
        assert!(!mailbox.add(Touched { own: false, all: false, children: BTreeSet::new() }));
    }
}
