//! Header compression: another decoder reads every block that attache accepts in the same way, and both read back what
//! attache writes.

use attache_http2::fuzzing::{HpackReader, HpackWriter};

type RawField = (Vec<u8>, Vec<u8>);

/// The other reader.
#[derive(Default)]
struct ReferenceReader(httlib_hpack::Decoder<'static>);

impl ReferenceReader {
    fn read(&mut self, block: &[u8]) -> Option<Vec<RawField>> {
        let mut all = Vec::new();
        self.0.decode(&mut block.to_vec(), &mut all).ok()?;
        Some(all.into_iter().map(|(name, value, _)| (name, value)).collect())
    }
}

/// Checks any blocks, one after the other on a connection. Panics if the rule of this module does not hold.
pub fn check(data: &[u8]) {
    read(data);
    write(data);
}

fn read(mut data: &[u8]) {
    let (mut ours, mut other) = (HpackReader::default(), ReferenceReader::default());
    while let Some((length, rest)) = data.split_first() {
        let (block, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        data = rest;
        // attache may refuse more, for example a change of the table size after a field.
        let Some(fields) = ours.read(block) else { return };
        assert_eq!(other.read(block), Some(fields), "{block:x?}");
    }
}

fn write(mut data: &[u8]) {
    let (mut writer, mut ours, mut other) =
        (HpackWriter::default(), HpackReader::default(), ReferenceReader::default());
    while let Some((op, rest)) = data.split_first() {
        data = rest;
        if *op > 250 {
            writer.limit([0, 50, 200, 4096, u32::MAX][usize::from(*op - 251)]);
            continue;
        }
        let mut fields: Vec<RawField> = Vec::new();
        for _ in 0..op % 8 {
            let Some(([name, length], rest)) = data.split_first_chunk() else { break };
            let (value, rest) = rest.split_at(usize::from(*length % 64).min(rest.len()));
            data = rest;
            let names = [
                "a",
                "b",
                ":path",
                ":status",
                "cookie",
                "authorization",
                "x-long-name",
                "date",
                "link",
                "te",
            ];
            let name = names[usize::from(*name) % names.len()];
            fields.push((name.as_bytes().to_vec(), value.repeat(1 + usize::from(*length / 64) * 20)));
        }
        let block = writer.write(&fields);
        assert_eq!(ours.read(&block).as_ref(), Some(&fields), "{block:x?}");
        assert_eq!(other.read(&block).as_ref(), Some(&fields), "{block:x?}");
    }
}
