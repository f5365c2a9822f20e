//! Exemplars: values that belong together, `metrics/sequence.rs`.

use loom::{sync::Arc, thread::spawn};

use crate::{
    Model, sequence,
    sync::{AtomicU64, Ordering::Relaxed},
};

pub(crate) const MODELS: &[Model] =
    &[("exemplars: a scrape takes values of one request, or none", values_belong_together)];

fn values_belong_together() {
    let cells = Arc::new([AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)]);
    let writes = spawn({
        let cells = cells.clone();
        move || {
            for request in 1..=2 {
                sequence::write(&cells[0], || {
                    cells[1..].iter().for_each(|cell| cell.store(request, Relaxed))
                });
            }
        }
    });
    if let Some([one, other]) = sequence::read(&cells[0], || [cells[1].load(Relaxed), cells[2].load(Relaxed)])
    {
        assert_eq!(one, other);
    }
    writes.join().unwrap();
    let last = sequence::read(&cells[0], || [cells[1].load(Relaxed), cells[2].load(Relaxed)]);
    assert_eq!(last, Some([2, 2]));
}
