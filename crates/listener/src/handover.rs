//! Decides which worker serves a connection: usually the worker that accepted it, otherwise the one with the fewest connections.
//!
//! The kernel spreads connections over the workers' sockets by a hash of the addresses. That is fair for many connections and unfair for
//! few: the four HTTP/2 connections of one application may all get to one worker and stay there for hours.
//!
//! The rule: if a worker would have at least 2 connections more than the worker with the fewest, and more than an eighth more, it hands the
//! socket to that one. If the counts are balanced, this costs one load per worker and no system call. The eighth keeps many short
//! connections, whose counts always differ a little, where they are. A socket that was handed over is never handed over again. It counts
//! for its new worker from the decision on, not from its arrival, so that a burst is spread and nothing goes back and forth. A full queue
//! means that the other worker is busy after all: then the socket stays.
//!
//! Connections are counted over all listeners of the process, because they share the worker's time.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tokio::sync::mpsc;

/// How many sockets may wait for one worker. Further ones stay where they were accepted.
const QUEUE: usize = 128;

/// How many connections each worker of the process has.
#[derive(Clone, Debug)]
pub struct ConnectionsPerWorker(Arc<[OpenCount]>);

/// It fills two cache lines, because processors fetch them in pairs: counting in one worker never slows another worker.
#[derive(Debug, Default)]
#[repr(align(128))]
struct OpenCount(AtomicUsize);

impl ConnectionsPerWorker {
    /// `count` workers without a connection; at least one.
    pub fn new(count: usize) -> Self {
        Self((0..count.max(1)).map(|_| OpenCount::default()).collect())
    }

    /// The number of workers.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// How many connections a worker has open or was handed; 0 for a worker that doesn't exist.
    pub fn open(&self, worker: usize) -> usize {
        self.0.get(worker).map_or(0, |open| open.0.load(Ordering::Relaxed))
    }

    fn enter(&self, worker: usize) -> ConnectionCount {
        if let Some(open) = self.0.get(worker) {
            open.0.fetch_add(1, Ordering::Relaxed);
        }
        ConnectionCount { workers: self.clone(), worker }
    }

    /// One slot for each worker, for the sockets of one bind.
    pub(crate) fn seats(&self) -> impl Iterator<Item = WorkerSlot> {
        let (to, queues): (Vec<_>, Vec<_>) = self.0.iter().map(|_| mpsc::channel(QUEUE)).unzip();
        let (workers, to) = (self.clone(), Arc::<[_]>::from(to));
        let seat =
            move |(worker, queue)| WorkerSlot { workers: workers.clone(), worker, to: to.clone(), queue };
        queues.into_iter().enumerate().map(seat)
    }
}

/// One connection in its worker's count. Dropping it removes the connection from the count.
#[derive(Debug)]
pub(crate) struct ConnectionCount {
    workers: ConnectionsPerWorker,
    worker: usize,
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        if let Some(open) = self.workers.0.get(self.worker) {
            open.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// An accepted socket that belongs to no runtime yet.
#[derive(Debug)]
pub(crate) enum DetachedSocket {
    Tcp(std::net::TcpStream, SocketAddr),
    Unix(std::os::unix::net::UnixStream),
}

/// A worker among those that accept from one bind.
#[derive(Debug)]
pub(crate) struct WorkerSlot {
    workers: ConnectionsPerWorker,
    worker: usize,
    to: Arc<[mpsc::Sender<(DetachedSocket, ConnectionCount)>]>,
    queue: mpsc::Receiver<(DetachedSocket, ConnectionCount)>,
}

/// Which worker a new connection belongs to.
#[derive(Debug)]
pub(crate) enum ConnectionOwner<'a> {
    Here(ConnectionCount),
    There(HandoverPermit<'a>),
}

/// Room for one socket in another worker's queue.
#[derive(Debug)]
pub(crate) struct HandoverPermit<'a> {
    permit: mpsc::Permit<'a, (DetachedSocket, ConnectionCount)>,
    load: ConnectionCount,
}

impl HandoverPermit<'_> {
    pub(crate) fn take(self, accepted: DetachedSocket) {
        self.permit.send((accepted, self.load));
    }
}

impl WorkerSlot {
    /// Decides which worker gets a connection that was just accepted, and counts it there.
    pub(crate) fn place(&self) -> ConnectionOwner<'_> {
        let mine = self.workers.open(self.worker);
        // This count doesn't include the new connection: with it, this worker has 2 more than the other.
        let enough = mine - mine / 8;
        let idlest = (0..self.workers.count())
            .map(|worker| (self.workers.open(worker), worker))
            .filter(|&(open, worker)| open < enough && self.to.get(worker).is_some_and(|to| !to.is_closed()))
            .min();
        let Some((_, worker)) = idlest else {
            return ConnectionOwner::Here(self.here());
        };
        match self.to.get(worker).map(mpsc::Sender::try_reserve) {
            Some(Ok(permit)) => {
                ConnectionOwner::There(HandoverPermit { permit, load: self.workers.enter(worker) })
            }
            _ => ConnectionOwner::Here(self.here()),
        }
    }

    /// Counts a connection that stays here, whatever the balance is.
    pub(crate) fn here(&self) -> ConnectionCount {
        self.workers.enter(self.worker)
    }

    /// The next socket that another worker handed over.
    pub(crate) fn poll_handed(&mut self, cx: &mut Context<'_>) -> Poll<(DetachedSocket, ConnectionCount)> {
        match self.queue.poll_recv(cx) {
            Poll::Ready(Some(handed)) => Poll::Ready(handed),
            // A slot holds a sender to its own queue, so `None` means that the queue was closed.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// Accepts no more sockets, and returns those that were handed over before. It waits for a socket that is being handed over right now.
    pub(crate) async fn close(&mut self) -> Vec<(DetachedSocket, ConnectionCount)> {
        self.queue.close();
        let mut rest = Vec::new();
        while let Some(handed) = self.queue.recv().await {
            rest.push(handed);
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix() -> DetachedSocket {
        DetachedSocket::Unix(std::os::unix::net::UnixStream::pair().unwrap().0)
    }

    /// Lets worker 0 accept this many connections. Those that stay are kept open.
    fn accept(seat: &WorkerSlot, count: usize, kept: &mut Vec<ConnectionCount>) {
        for _ in 0..count {
            match seat.place() {
                ConnectionOwner::Here(load) => kept.push(load),
                ConnectionOwner::There(offer) => offer.take(unix()),
            }
        }
    }

    #[test]
    fn few_connections_are_spread_exactly_and_balanced_ones_stay() {
        let workers = ConnectionsPerWorker::new(4);
        let seats: Vec<_> = workers.seats().collect();
        let mut kept = Vec::new();
        accept(&seats[0], 8, &mut kept);
        assert_eq!([0, 1, 2, 3].map(|w| workers.open(w)), [2; 4]);
        // One connection more than the others is no reason to hand one over.
        accept(&seats[0], 1, &mut kept);
        assert_eq!(workers.open(0), 3);
        drop((kept, seats));
        assert_eq!([0, 1, 2, 3].map(|w| workers.open(w)), [0; 4]);
    }

    #[test]
    fn large_counts_may_differ_by_an_eighth() {
        let workers = ConnectionsPerWorker::new(2);
        let seats: Vec<_> = workers.seats().collect();
        let mut kept: Vec<_> = (0..80).map(|_| seats[0].here()).collect();
        kept.extend((0..70).map(|_| seats[1].here()));
        assert!(matches!(seats[0].place(), ConnectionOwner::Here(_)));
        kept.truncate(149);
        assert!(matches!(seats[0].place(), ConnectionOwner::There(_)));
    }

    #[test]
    fn a_full_or_closed_queue_accepts_nothing() {
        let workers = ConnectionsPerWorker::new(2);
        let mut seats: Vec<_> = workers.seats().collect();
        let mut kept: Vec<_> = (0..1000).map(|_| seats[0].here()).collect();
        accept(&seats[0], QUEUE + 5, &mut kept);
        assert_eq!((workers.open(0), workers.open(1)), (1005, QUEUE));
        let other = seats.pop().unwrap();
        drop(other);
        accept(&seats[0], 1, &mut kept);
        assert_eq!((workers.open(0), workers.open(1)), (1006, 0));
    }
}
