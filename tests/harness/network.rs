//! The network between control nodes, in the hands of a test: one proxy for each node that dials and each
//! that is dialled, so that a link can be held in one direction only.
//!
//! A held link loses nothing: what was sent waits and comes late when the link is opened again, as TCP
//! sends it again after a partition that it outlived, also on connections that their caller has long
//! given up. A connection that is dialled while its link is held is taken and gets no answer. So a
//! partition looks like silence, never like a refusal; a killed process is what looks like a refusal.

use std::time::Duration;
use tokio::{
    io::{self, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::watch,
};

/// What is read at once, and held of one connection before its sender has to wait.
const PIECE_BYTES: usize = 64 << 10;

/// One direction between two nodes.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    held: bool,
    delay: Duration,
}

/// All links. Stops when dropped.
#[derive(Debug)]
pub struct Network {
    /// By sender and receiver.
    links: Vec<Vec<watch::Sender<Link>>>,
    /// By who dials and who is dialled: the port of the proxy.
    ports: Vec<Vec<u16>>,
    _runtime: Runtime,
}

impl Network {
    /// Proxies between nodes that listen at `addrs`, now or later.
    ///
    /// # Panics
    /// When there is no free port.
    pub fn start(addrs: &[String]) -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().expect("a runtime");
        let all = 0..addrs.len();
        let links: Vec<Vec<_>> =
            all.clone().map(|_| all.clone().map(|_| watch::Sender::default()).collect()).collect();
        let mut ports = vec![vec![0; addrs.len()]; addrs.len()];
        for from in all.clone() {
            for to in all.clone().filter(|to| *to != from) {
                let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
                ports[from][to] = listener.local_addr().expect("it is bound").port();
                let ways = (links[from][to].subscribe(), links[to][from].subscribe());
                runtime.spawn(serve(listener, addrs[to].clone(), ways));
            }
        }
        Self { links, ports, _runtime: runtime }
    }

    /// Where `from` has to dial to reach `to`.
    pub fn port(&self, from: usize, to: usize) -> u16 {
        self.ports[from][to]
    }

    /// From now on nothing gets from one node to the other; the other direction stays as it is.
    pub fn hold(&self, from: usize, to: usize) {
        self.links[from][to].send_modify(|link| link.held = true);
    }

    /// From now on every message from one node to the other takes so much longer.
    pub fn delay(&self, from: usize, to: usize, delay: Duration) {
        self.links[from][to].send_modify(|link| link.delay = delay);
    }

    /// From now on nothing gets from one group to the other, or back.
    pub fn part(&self, group: &[usize], others: &[usize]) {
        for one in group {
            for other in others {
                self.hold(*one, *other);
                self.hold(*other, *one);
            }
        }
    }

    /// Every link works again.
    pub fn heal(&self) {
        for link in self.links.iter().flatten() {
            link.send_replace(Link::default());
        }
    }
}

type Ways = (watch::Receiver<Link>, watch::Receiver<Link>);

async fn serve(listener: TcpListener, target: String, ways: Ways) {
    loop {
        if let Ok((near, _)) = listener.accept().await {
            // A connection that breaks is its ends' business.
            tokio::spawn(carry(near, target.clone(), ways.clone()));
        }
    }
}

/// Carries one connection. Nothing is dialled before both ways are open, nor for a caller who gave up.
async fn carry(mut near: TcpStream, target: String, (mut there, mut back): Ways) -> io::Result<()> {
    let mut first = Vec::new();
    while there.borrow().held || back.borrow().held {
        tokio::select! {
            biased;
            _ = there.changed() => {}
            _ = back.changed() => {}
            read = near.read_buf(&mut first), if first.len() < PIECE_BYTES => {
                if read? == 0 {
                    return Ok(());
                }
            }
        }
    }
    let mut far = TcpStream::connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    far.write_all(&first).await?;
    let (near, far) = (near.into_split(), far.into_split());
    tokio::try_join!(pump(near.0, far.1, there), pump(far.0, near.1, back))?;
    Ok(())
}

/// Passes on what comes, ends included, as the link allows.
async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut link: watch::Receiver<Link>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = from.read(&mut piece).await;
        let Ok(now) = link.wait_for(|link| !link.held).await.map(|link| *link) else {
            return Ok(());
        };
        if !now.delay.is_zero() {
            tokio::time::sleep(now.delay).await;
        }
        match read? {
            0 => return to.shutdown().await,
            bytes => to.write_all(&piece[..bytes]).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// Two ends of a connection that node 0 dialled to node 1.
    fn connected() -> (Network, std::net::TcpStream, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addrs = ["127.0.0.1:1".to_owned(), listener.local_addr().unwrap().to_string()];
        let network = Network::start(&addrs);
        let near = std::net::TcpStream::connect(("127.0.0.1", network.port(0, 1))).unwrap();
        let (far, _) = listener.accept().unwrap();
        for end in [&near, &far] {
            end.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
        }
        (network, near, far)
    }

    #[test]
    fn a_link_is_held_in_one_direction_and_loses_nothing() {
        let (network, mut near, mut far) = connected();
        let mut got = [0; 4];
        near.write_all(b"ping").unwrap();
        far.read_exact(&mut got).unwrap();
        network.hold(0, 1);
        near.write_all(b"late").unwrap();
        far.write_all(b"pong").unwrap();
        near.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"pong");
        assert!(far.read_exact(&mut got).is_err(), "the link is held");
        network.heal();
        far.set_read_timeout(None).unwrap();
        far.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"late");
    }

    #[test]
    fn an_end_is_passed_on() {
        let (_network, near, mut far) = connected();
        drop(near);
        far.set_read_timeout(None).unwrap();
        assert_eq!(far.read(&mut [0]).unwrap(), 0);
    }
}
