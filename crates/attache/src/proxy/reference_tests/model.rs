//! What every client must see, and when the program must end: the rules of drain and reload in their simplest form.
//!
//! All times are milliseconds of virtual time. Clients act at times that are 1 mod 4, and the program at times that are 3 mod 4, so no rule
//! has to say who comes first. If a client acts in the same instant as a drain, on purpose, it acts before the drain.

/// How long a connection may stay idle after it was told to end.
const END_NOTICE: u64 = 100;
/// How often the program checks whether the last inbound connection has ended.
const CHECK_INTERVAL: u64 = 20;
/// The least time that the app's own listeners have, however long the calls to the app took.
const REST: u64 = 500;
/// `reload.drain_timeout`.
pub(super) const RELOAD_DRAIN: u64 = 300;
/// An instant that never comes.
const NEVER: u64 = u64::MAX;

/// A listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListenerPlace {
    /// Other machines reach it: it drains first.
    Inbound,
    Outbound,
    /// Reloads add it and remove it.
    Extra,
}

/// What a reload changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReloadChange {
    /// Another upstream is called.
    Route,
    /// The upstreams are replaced by others with the same endpoints.
    Upstream,
    /// A setting that concerns open connections.
    Settings,
    /// `Place::Extra` is added or removed.
    Extra,
    /// The file is not a valid config: nothing changes.
    Broken,
}

/// One client: a connection and its requests.
#[derive(Clone, Debug)]
pub(super) struct ScriptedClient {
    pub(super) to: ListenerPlace,
    pub(super) at: u64,
    /// It acts in the same instant as the reload or the drain at `at`, and the program sees both at once.
    pub(super) tied: bool,
    /// The wait after the previous answer, and the time that the upstream needs. The first request is sent with the connection.
    pub(super) requests: Vec<(u64, u64)>,
    /// It closes the connection after its last answer.
    pub(super) leaves: bool,
}

/// What a client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientEvent {
    /// No listener accepts the connection.
    Refused,
    /// An answer: when it comes, whether it says that the connection ends, and who sent it.
    Answer { at: u64, close: bool, from: char },
    /// The connection ends.
    End(u64),
}

/// A random history.
#[derive(Clone, Debug)]
pub(super) struct ReloadHistory {
    pub(super) reloads: Vec<(u64, ReloadChange)>,
    pub(super) clients: Vec<ScriptedClient>,
    pub(super) stop: u64,
    /// `shutdown.delay`.
    pub(super) delay: u64,
    /// `shutdown.drain_timeout`.
    pub(super) drain_timeout: u64,
}

/// The result that a [`ReloadHistory`] must have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ExpectedOutcome {
    pub(super) clients: Vec<Vec<ClientEvent>>,
    /// When the program ends.
    pub(super) end: u64,
}

/// When open connections of a listener are told to end, and when they are cut.
type DrainTimes = (u64, u64);

impl ReloadHistory {
    /// Whether a reload at this time is accepted.
    pub(super) fn is_taken(&self, reload: &(u64, ReloadChange)) -> bool {
        reload.0 < self.stop + self.delay && reload.1 != ReloadChange::Broken
    }

    fn taken(&self, change: ReloadChange) -> impl Iterator<Item = u64> {
        let reloads = self.reloads.iter().filter(move |reload| reload.1 == change && self.is_taken(reload));
        reloads.map(|(at, _)| *at)
    }

    /// How often something was changed before this time.
    fn times(&self, change: ReloadChange, at: u64) -> usize {
        self.taken(change).filter(|when| *when < at).count()
    }

    fn retired_by_reloads(&self, place: ListenerPlace) -> Vec<DrainTimes> {
        let removals =
            self.taken(ReloadChange::Extra).enumerate().filter(|(n, _)| n % 2 == 1).map(|(_, at)| at);
        let removals = removals.filter(|_| place == ListenerPlace::Extra);
        self.taken(ReloadChange::Settings).chain(removals).map(|at| (at, at + RELOAD_DRAIN)).collect()
    }

    /// What the client sees, and when its connection ends.
    fn live(&self, client: &ScriptedClient, retires: &[DrainTimes]) -> (Vec<ClientEvent>, u64) {
        let after = || retires.iter().filter(|(told, _)| *told >= client.at);
        let told = after().map(|(told, _)| *told).min().unwrap_or(NEVER);
        let cut = after().map(|(_, cut)| *cut).min().unwrap_or(NEVER);
        let idle_end = told.saturating_add(END_NOTICE).min(cut);
        let (mut seen, mut now) = (Vec::new(), client.at);
        let ends = |mut seen: Vec<ClientEvent>, at| {
            seen.push(ClientEvent::End(at));
            (seen, at)
        };
        for (n, (wait, service)) in client.requests.iter().enumerate() {
            let sent = if n == 0 { now } else { now + wait };
            if sent > idle_end {
                return ends(seen, idle_end);
            }
            now = sent + service;
            if now > cut {
                return ends(seen, cut);
            }
            seen.push(ClientEvent::Answer {
                at: now,
                close: now > told,
                from: self.answers(client.to, sent),
            });
            if now > told {
                let has_left = client.leaves && n + 1 == client.requests.len();
                return if has_left { (seen, now) } else { ends(seen, now) };
            }
        }
        if client.leaves { (seen, now) } else { ends(seen, idle_end) }
    }

    fn answers(&self, to: ListenerPlace, at: u64) -> char {
        let other = to == ListenerPlace::Extra || self.times(ReloadChange::Route, at) % 2 == 1;
        if other { 'b' } else { 'a' }
    }

    /// The result that this history must have.
    pub(super) fn outcome(&self) -> ExpectedOutcome {
        let drain = self.stop + self.delay;
        let deadline = drain + self.drain_timeout;
        let open = |client: &&ScriptedClient| client.to == ListenerPlace::Inbound && client.at <= drain;
        let inbound_end = self.clients.iter().filter(open).map(|client| {
            let mut retires = self.retired_by_reloads(ListenerPlace::Inbound);
            retires.push((drain, NEVER));
            self.live(client, &retires).1
        });
        let last = inbound_end.max().unwrap_or(0).max(drain);
        // Requests of other machines may need calls of the app: the app's listeners drain when those requests have ended.
        let look = drain + (last - drain + 1).next_multiple_of(CHECK_INTERVAL);
        let drain_all = look.min(deadline);
        let cut = deadline.max(drain_all + REST);
        let (mut clients, mut end) = (Vec::new(), drain_all);
        for client in &self.clients {
            let drains = if client.to == ListenerPlace::Inbound { drain } else { drain_all };
            let is_there =
                client.to != ListenerPlace::Extra || self.times(ReloadChange::Extra, client.at) % 2 == 1;
            if client.at > drains || !is_there {
                clients.push(vec![ClientEvent::Refused]);
                continue;
            }
            let mut retires = self.retired_by_reloads(client.to);
            retires.push((drains, cut));
            let (seen, ended) = self.live(client, &retires);
            end = end.max(ended);
            clients.push(seen);
        }
        ExpectedOutcome { clients, end }
    }
}
