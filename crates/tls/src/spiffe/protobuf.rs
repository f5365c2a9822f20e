//! Just enough of protobuf's wire format to read the Workload API's messages.
//!
//! Source: protobuf.dev, "Encoding". Unknown fields are skipped, as readers must.

/// One field of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Bytes(&'a [u8]),
    /// A number, of which none matters here.
    Other,
}

/// The fields of a message in their order; `None` in an item is a message that is cut or no protobuf.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => {
                self.varint()?;
                Value::Other
            }
            1 => {
                self.take(8)?;
                Value::Other
            }
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Value::Other
            }
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_documentations_example_is_read() {
        // `message Test2 { string b = 2; }` with "testing", then `int32 a = 1` with 150.
        let message = [0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67, 0x08, 0x96, 0x01];
        let fields: Vec<_> = Fields::of(&message).map(Option::unwrap).collect();
        assert_eq!(fields, [(2, Value::Bytes(b"testing")), (1, Value::Other)]);
    }

    #[test]
    fn a_cut_message_is_told_from_a_whole_one() {
        let cut = Fields::of(&[0x12, 0x07, 0x74]).collect::<Option<Vec<_>>>();
        assert_eq!(cut, None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Fields::of(&bytes).count();
        }
    }
}
