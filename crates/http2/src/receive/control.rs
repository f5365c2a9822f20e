//! Frames that carry no part of a message (RFC 9113 sections 6.3 to 6.9).

use super::{FrameError, depends_on, frame_size, protocol};
use crate::{
    Error, ErrorCode, FrameHeader,
    error::Initiator,
    frame::{ACK, MAX_FRAME, setting},
    kind,
    state::{CONNECTION_WINDOW, ConnectionState, PingPurpose},
};

impl ConnectionState {
    // RST_STREAM, section 6.4.

    pub(super) fn rst_stream(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), FrameError> {
        let Ok(code) = payload.try_into().map(u32::from_be_bytes) else {
            return Err(frame_size("RST_STREAM must have four bytes"));
        };
        if head.stream == 0 || (self.is_idle(head.stream) && !self.is_beyond(head.stream)) {
            return Err(protocol("RST_STREAM on stream 0"));
        }
        let Some((key, stream)) = self.stream(head.stream) else { return Ok(()) };
        stream.end = Some(Error::reset(ErrorCode(code), Initiator::Peer, ""));
        stream.wake();
        self.close(key);
        Ok(())
    }

    // SETTINGS, section 6.5.

    pub(super) fn settings(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), FrameError> {
        if head.stream != 0 {
            return Err(protocol("SETTINGS on a stream other than 0"));
        }
        if head.is_ack() {
            return self.settings_acknowledged(payload);
        }
        let (all, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(frame_size("SETTINGS must have six bytes for each setting"));
        }
        let mut window = self.peer.window;
        for &[high, low, value @ ..] in all {
            let value = u32::from_be_bytes(value);
            match u16::from_be_bytes([high, low]) {
                setting::INITIAL_WINDOW_SIZE if value > CONNECTION_WINDOW => {
                    return Err(Error::rule(
                        ErrorCode::FLOW_CONTROL_ERROR,
                        "SETTINGS_INITIAL_WINDOW_SIZE is above 2^31 - 1",
                    )
                    .into());
                }
                setting::INITIAL_WINDOW_SIZE => window = value,
                name => self.setting(name, value)?,
            }
        }
        self.resize_windows(window)?;
        self.peer.known = true;
        self.frame(FrameHeader { length: 0, kind: kind::SETTINGS, flags: ACK, stream: 0 }, &[]);
        Ok(())
    }

    fn setting(&mut self, name: u16, value: u32) -> Result<(), FrameError> {
        match name {
            setting::HEADER_TABLE_SIZE => self.encoder.limit(value),
            setting::ENABLE_PUSH if value > 1 || (value == 1 && !self.is_server) => {
                return Err(protocol("SETTINGS_ENABLE_PUSH has an invalid value"));
            }
            setting::MAX_CONCURRENT_STREAMS => self.peer.streams = value,
            setting::MAX_FRAME_SIZE => {
                if !(MAX_FRAME..1 << 24).contains(&(value as usize)) {
                    return Err(protocol("SETTINGS_MAX_FRAME_SIZE has an invalid value"));
                }
                self.peer.frame = value as usize;
            }
            setting::ENABLE_CONNECT_PROTOCOL => {
                if value > 1 || (value == 0 && self.peer.extended_connect) {
                    return Err(protocol("SETTINGS_ENABLE_CONNECT_PROTOCOL has an invalid value"));
                }
                self.peer.extended_connect = value == 1;
            }
            // SETTINGS_MAX_HEADER_LIST_SIZE is only advice, and unknown settings are ignored.
            _ => {}
        }
        Ok(())
    }

    /// Changes the streams' windows after a new SETTINGS_INITIAL_WINDOW_SIZE (section 6.9.2). This is done once for each frame, even if the
    /// frame sets it several times, because it visits every stream.
    fn resize_windows(&mut self, window: u32) -> Result<(), FrameError> {
        let change = i64::from(window) - i64::from(self.peer.window);
        if change == 0 {
            return Ok(());
        }
        self.peer.window = window;
        for (_, stream) in &mut self.streams {
            if stream.is_closed() {
                continue;
            }
            stream.send_window += change;
            if stream.send_window > i64::from(CONNECTION_WINDOW) {
                return Err(Error::rule(
                    ErrorCode::FLOW_CONTROL_ERROR,
                    "a stream's window is above 2^31 - 1",
                )
                .into());
            }
            if change > 0 && stream.send_window > 0 {
                stream.wake_writer();
            }
        }
        Ok(())
    }

    fn settings_acknowledged(&mut self, payload: &[u8]) -> Result<(), FrameError> {
        if !payload.is_empty() {
            return Err(frame_size("an acknowledgement of SETTINGS has a payload"));
        }
        let Some(size) = self.unacknowledged.pop_front() else {
            return Err(protocol("an acknowledgement of SETTINGS that attache did not send"));
        };
        self.grant_window(size);
        self.announce_window();
        Ok(())
    }

    // PING, section 6.7.

    pub(super) fn ping(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), FrameError> {
        if head.stream != 0 {
            return Err(protocol("PING on a stream other than 0"));
        }
        if payload.len() != 8 {
            return Err(frame_size("PING must have eight bytes"));
        }
        if !head.is_ack() {
            self.frame(FrameHeader { flags: ACK, ..head }, payload);
            return Ok(());
        }
        match payload {
            [b'a', b't', b't', b'a', b'c', b'h', b'e', what] if *what == PingPurpose::Path as u8 => {
                self.window.answered();
            }
            [b'a', b't', b't', b'a', b'c', b'h', b'e', what] if *what == PingPurpose::Goodbye as u8 => {
                if self.sent_go_away.is_some_and(|last| last > self.last) {
                    self.sent_go_away = Some(self.last);
                    self.write_go_away(self.last, ErrorCode::NO_ERROR, "");
                }
                self.wake();
            }
            _ => {}
        }
        Ok(())
    }

    // GOAWAY, section 6.8.

    pub(super) fn go_away(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), FrameError> {
        if head.stream != 0 {
            return Err(protocol("GOAWAY on a stream other than 0"));
        }
        let (Some(&last), Some(&code)) =
            (payload.first_chunk(), payload.get(4..).and_then(<[u8]>::first_chunk))
        else {
            return Err(frame_size("GOAWAY must have at least eight bytes"));
        };
        let (last, code) =
            (u32::from_be_bytes(last) & CONNECTION_WINDOW, ErrorCode(u32::from_be_bytes(code)));
        let words = String::from_utf8_lossy(payload.get(8..).unwrap_or_default());
        let error = Error::go_away(code, Initiator::Peer, words.trim().chars().take(200).collect::<String>());
        let last = self.received_go_away.map_or(last, |before| before.min(last));
        self.received_go_away = Some(last);
        // The peer won't process these streams; they may be sent on another connection.
        let refused: Vec<_> = self
            .streams
            .iter()
            .filter(|(_, stream)| !self.is_server && stream.id > last)
            .map(|(key, _)| key)
            .collect();
        for key in refused {
            if let Some(stream) = self.streams.get_mut(key).filter(|stream| !stream.is_closed()) {
                stream.end = Some(error.clone());
                stream.wake();
            }
            self.close(key);
        }
        self.wake();
        Ok(())
    }

    // WINDOW_UPDATE, section 6.9.

    pub(super) fn window_update(&mut self, head: FrameHeader, payload: &[u8]) -> Result<(), FrameError> {
        let Ok(bytes) = payload.try_into().map(u32::from_be_bytes) else {
            return Err(frame_size("WINDOW_UPDATE must have four bytes"));
        };
        let (id, bytes) = (head.stream, bytes & CONNECTION_WINDOW);
        if id == 0 {
            if bytes == 0 {
                return Err(protocol("WINDOW_UPDATE of nothing"));
            }
            self.send_window += i64::from(bytes);
            if self.send_window > i64::from(CONNECTION_WINDOW) {
                return Err(Error::rule(
                    ErrorCode::FLOW_CONTROL_ERROR,
                    "the connection's window is above 2^31 - 1",
                )
                .into());
            }
            self.serve_waiting();
            return Ok(());
        }
        if self.is_idle(id) && !self.is_beyond(id) {
            return Err(protocol("WINDOW_UPDATE for a stream that was never opened"));
        }
        let Some((_, stream)) = self.stream(id) else { return Ok(()) };
        if bytes == 0 {
            return Err(FrameError::Stream(id, ErrorCode::PROTOCOL_ERROR, "WINDOW_UPDATE of nothing"));
        }
        stream.send_window += i64::from(bytes);
        if stream.send_window > i64::from(CONNECTION_WINDOW) {
            return Err(FrameError::Stream(
                id,
                ErrorCode::FLOW_CONTROL_ERROR,
                "a stream's window is above 2^31 - 1",
            ));
        }
        if stream.send_window > 0 {
            stream.wake_writer();
        }
        Ok(())
    }
}

// PRIORITY, section 6.3.

pub(super) fn priority(head: FrameHeader, payload: &[u8]) -> Result<(), FrameError> {
    if head.stream == 0 {
        return Err(protocol("PRIORITY on stream 0"));
    }
    if payload.len() != 5 {
        return Err(FrameError::Stream(
            head.stream,
            ErrorCode::FRAME_SIZE_ERROR,
            "PRIORITY must have five bytes",
        ));
    }
    if depends_on(payload) == Some(head.stream) {
        return Err(FrameError::Stream(
            head.stream,
            ErrorCode::PROTOCOL_ERROR,
            "a stream that depends on itself",
        ));
    }
    Ok(())
}
