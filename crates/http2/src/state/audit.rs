//! Checks the counts in a connection's state, for tests and fuzzing.

use super::{CLOSED_REMEMBERED, CONNECTION_WINDOW, ConnectionState, RESETS_REMEMBERED};

impl ConnectionState {
    /// Checks that every count is right. Panics if one is not.
    pub(crate) fn audit(&self) {
        let Self { streams, places, waiting, accepted, .. } = self;
        for (id, key) in places {
            let stream = streams.get(*key);
            assert!(stream.is_some_and(|stream| stream.id == *id && !stream.is_closed()), "{id}: {stream:?}");
        }
        assert_eq!(self.active as usize, places.len(), "{self:?}");
        assert_eq!(self.reserved, streams.iter().map(|(_, stream)| stream.granted).sum::<u32>(), "{self:?}");
        assert_eq!(waiting.len(), streams.iter().filter(|(_, stream)| stream.is_waiting).count(), "{self:?}");
        assert!(
            waiting.iter().all(|key| streams.get(*key).is_some_and(|stream| stream.is_waiting)),
            "{self:?}"
        );
        assert!(
            waiting.is_empty() || self.available() == 0,
            "a stream waits although there is capacity: {self:?}"
        );
        let reset = accepted
            .iter()
            .filter(|request| streams.get(request.key).is_some_and(|stream| stream.end.is_some()));
        assert_eq!(self.pending_resets, reset.count());
        assert!(self.closed.len() <= CLOSED_REMEMBERED && self.resets.len() <= RESETS_REMEMBERED);
        for (_, stream) in streams {
            assert!(stream.handles > 0, "{stream:?}");
            assert!(stream.interim.len() <= 16);
            let held = stream.receive_window
                + i64::from(stream.unreleased)
                + i64::try_from(stream.received.len()).unwrap_or(i64::MAX >> 1);
            assert!(stream.is_closed() || held <= i64::from(self.granted_window), "{stream:?}");
        }
        if self.end.is_some() {
            assert!(places.is_empty() && waiting.is_empty() && self.reserved == 0, "{self:?}");
        } else {
            assert!(self.active <= self.settings.streams || !self.is_server);
            assert!(self.send_window <= i64::from(CONNECTION_WINDOW));
        }
    }

    /// Checks that no stream is left and no capacity is reserved for one. Panics otherwise.
    pub(crate) fn audit_rest(&self) {
        self.audit();
        assert!(self.streams.is_empty() && self.places.is_empty() && self.active == 0, "{self:?}");
        assert!(self.accepted.is_empty() && self.pending_resets == 0, "{self:?}");
    }

    #[cfg(test)]
    pub(crate) const fn reserved(&self) -> u32 {
        self.reserved
    }

    #[cfg(test)]
    pub(crate) fn waiting_len(&self) -> usize {
        self.waiting.len()
    }
}
