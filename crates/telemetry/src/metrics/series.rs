//! Counting without a lock: every worker has its own cells for every series, and a scrape adds them up.
//!
//! Rule: only the thread that owns a [`WorkerSeries`] writes its cells, and any thread reads them. So adding is a relaxed load and a relaxed
//! store, without a locked instruction, on a cache line that no other worker writes. A reader never sees half a value. A scrape may see one
//! cell of a request before another, and Prometheus allows that.
//!
//! A series is found by the *addresses* of its label texts. Names are interned by the config, and words are static. So it is enough to hash
//! a few addresses; no texts are compared, and no shared reference count is touched. An address alone is not enough, for two reasons. An
//! empty static text may have the same address as its neighbour, so the length is a part of the key. And the address of a freed name may be
//! used for another name, so a table keeps every name whose address it uses.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    hash::{BuildHasherDefault, Hash, Hasher},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use attache_config::model::Name;

use crate::Reason;

/// The most series of one family that one worker keeps. Further ones are counted in one series whose labels are all [`OTHER`]. Labels come
/// from the config and from closed lists, so only endless reloads with new names each time can reach this.
const MAX_SERIES: usize = 10_000;

/// Every label of the series for what is above [`MAX_SERIES`].
const OTHER: &str = "other";

/// The value of one label.
#[derive(Clone, Copy)]
pub(crate) enum Label<'a> {
    /// A name from the config.
    Name(&'a Name),
    /// A word from a closed list.
    Word(&'static str),
}

impl<'a> From<&'a Name> for Label<'a> {
    fn from(name: &'a Name) -> Self {
        Self::Name(name)
    }
}

impl<'a> From<Option<&'a Name>> for Label<'a> {
    /// A missing name becomes an empty label.
    fn from(name: Option<&'a Name>) -> Self {
        name.map_or(Self::Word(""), Self::Name)
    }
}

impl From<&'static str> for Label<'_> {
    fn from(word: &'static str) -> Self {
        Self::Word(word)
    }
}

impl From<Reason> for Label<'_> {
    fn from(reason: Reason) -> Self {
        Self::Word(reason.as_str())
    }
}

impl From<Option<Reason>> for Label<'_> {
    /// A missing reason becomes an empty label.
    fn from(reason: Option<Reason>) -> Self {
        Self::Word(reason.map_or("", Reason::as_str))
    }
}

impl From<Result<(), Reason>> for Label<'_> {
    fn from(outcome: Result<(), Reason>) -> Self {
        Self::Word(outcome.err().map_or("ok", Reason::as_str))
    }
}

impl Label<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Word(word) => word,
        }
    }

    fn address(&self) -> (usize, usize) {
        let text = self.text();
        (text.as_ptr().addr(), text.len())
    }

    /// Keeps the name alive, so that its address can't be used for another text.
    fn hold(&self) -> Option<Name> {
        match self {
            Self::Name(name) => Some(Name::clone(name)),
            Self::Word(_) => None,
        }
    }
}

/// One worker's cells of one series. It is aligned to two cache lines, because the prefetcher of x86 loads them in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Series<const LABELS: usize, const CELLS: usize> {
    cells: [AtomicU64; CELLS],
    labels: [Name; LABELS],
}

impl<const LABELS: usize, const CELLS: usize> Series<LABELS, CELLS> {
    /// Adds to a cell. Only the owner of the table may call this. It wraps, so adding `u64::MAX` subtracts one.
    pub(crate) fn add(&self, cell: usize, amount: u64) {
        if let Some(cell) = self.cells.get(cell) {
            cell.store(cell.load(Relaxed).wrapping_add(amount), Relaxed);
        }
    }

    /// A cell, for callers that define their own order of writes. For a position that doesn't exist it is the last cell.
    pub(crate) fn cell(&self, cell: usize) -> &AtomicU64 {
        &self.cells[cell.min(CELLS - 1)]
    }

    /// The value of a cell.
    pub(crate) fn get(&self, cell: usize) -> u64 {
        self.cell(cell).load(Relaxed)
    }

    /// Sets a cell. Only the owner of the table may call this.
    pub(crate) fn set(&self, cell: usize, value: u64) {
        self.cell(cell).store(value, Relaxed);
    }
}

/// All workers' series of one family; a scrape reads them.
#[derive(Debug)]
pub(crate) struct SeriesFamily<const LABELS: usize, const CELLS: usize> {
    /// A worker locks this once for each new series, and the config limits their number. A scrape locks it for as long as it takes to copy
    /// the pointers. A request whose series is known never locks it.
    series: Mutex<Vec<Arc<Series<LABELS, CELLS>>>>,
}

impl<const LABELS: usize, const CELLS: usize> Default for SeriesFamily<LABELS, CELLS> {
    fn default() -> Self {
        Self { series: Mutex::default() }
    }
}

impl<const LABELS: usize, const CELLS: usize> SeriesFamily<LABELS, CELLS> {
    fn register(&self, labels: [Name; LABELS]) -> Arc<Series<LABELS, CELLS>> {
        let series = Arc::new(Series { cells: std::array::from_fn(|_| AtomicU64::new(0)), labels });
        self.series.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&series));
        series
    }

    /// The sums over all workers, sorted by label.
    pub(crate) fn sums(&self) -> BTreeMap<[Name; LABELS], [u64; CELLS]> {
        let all = self.series.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut sums = BTreeMap::<_, [u64; CELLS]>::new();
        for series in all {
            let sum = sums.entry(series.labels.clone()).or_insert([0; CELLS]);
            for (sum, cell) in sum.iter_mut().zip(&series.cells) {
                *sum = sum.wrapping_add(cell.load(Relaxed));
            }
        }
        sums
    }
}

impl<const LABELS: usize, const CELLS: usize> SeriesFamily<LABELS, CELLS> {
    /// What `read` computes from all workers' cells of each series.
    pub(crate) fn fold<T: Default>(
        &self,
        read: impl Fn(&Series<LABELS, CELLS>, &mut T),
    ) -> BTreeMap<[Name; LABELS], T> {
        let all = self.series.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut folded = BTreeMap::<_, T>::new();
        for series in all {
            read(&series, folded.entry(series.labels.clone()).or_default());
        }
        folded
    }
}

/// The sums over all workers of one family's cells, by label.
pub(crate) type Sums<const LABELS: usize, const CELLS: usize> = BTreeMap<[Name; LABELS], [u64; CELLS]>;

/// One worker's access to its series of one family.
#[derive(Debug)]
pub(crate) struct WorkerSeries<const LABELS: usize, const CELLS: usize> {
    family: Arc<SeriesFamily<LABELS, CELLS>>,
    maps: RefCell<Maps<LABELS, CELLS>>,
}

type ByAddress<const LABELS: usize, const CELLS: usize> =
    HashMap<LabelAddresses<LABELS>, CachedSeries<LABELS, CELLS>, BuildHasherDefault<AddressHasher>>;

#[derive(Debug)]
struct Maps<const LABELS: usize, const CELLS: usize> {
    by_address: ByAddress<LABELS, CELLS>,
    by_text: HashMap<[Name; LABELS], Arc<Series<LABELS, CELLS>>>,
}

#[derive(Debug)]
struct CachedSeries<const LABELS: usize, const CELLS: usize> {
    series: Arc<Series<LABELS, CELLS>>,
    _held: [Option<Name>; LABELS],
}

impl<const LABELS: usize, const CELLS: usize> WorkerSeries<LABELS, CELLS> {
    pub(crate) fn new(family: &Arc<SeriesFamily<LABELS, CELLS>>) -> Self {
        let maps = Maps { by_address: HashMap::default(), by_text: HashMap::new() };
        Self { family: Arc::clone(family), maps: RefCell::new(maps) }
    }

    /// Adds to one cell.
    pub(crate) fn add(&self, labels: [Label<'_>; LABELS], cell: usize, amount: u64) {
        self.with(labels, |series| series.add(cell, amount));
    }

    /// Runs `write` on the cells of a series. If the series is known, it allocates nothing and takes no lock.
    pub(crate) fn with<T>(
        &self,
        labels: [Label<'_>; LABELS],
        write: impl FnOnce(&Arc<Series<LABELS, CELLS>>) -> T,
    ) -> T {
        let maps = &mut *self.maps.borrow_mut();
        let key = LabelAddresses(labels.map(|label| label.address()));
        if let Some(known) = maps.by_address.get(&key) {
            return write(&known.series);
        }
        // After a reload the same names have new addresses, which lead to the same series. The old addresses are removed here before there
        // are too many.
        if maps.by_address.len() > 64 + 2 * maps.by_text.len() {
            maps.by_address.clear();
        }
        let full = maps.by_text.len() >= MAX_SERIES;
        let mut texts = labels.map(|label| label.hold().unwrap_or_else(|| label.text().into()));
        if full && !maps.by_text.contains_key(&texts) {
            texts = std::array::from_fn(|_| OTHER.into());
        }
        let family = &self.family;
        let series = maps.by_text.entry(texts).or_insert_with_key(|texts| family.register(texts.clone()));
        let written = write(series);
        let known = CachedSeries { series: Arc::clone(series), _held: labels.map(|label| label.hold()) };
        maps.by_address.insert(key, known);
        written
    }
}

/// Declares families, each with its number of labels and of cells, and the tables of one worker for all of them.
macro_rules! families {
    ($vis:vis $families:ident, $tables:ident { $($(#[$doc:meta])* $name:ident: $labels:expr, $cells:expr;)+ }) => {
        /// The families of all workers.
        #[derive(Debug, Default)]
        $vis struct $families {
            $($(#[$doc])* $vis $name: std::sync::Arc<$crate::metrics::series::SeriesFamily<{ $labels }, { $cells }>>,)+
        }

        /// One worker's tables of these families.
        #[derive(Debug)]
        $vis struct $tables {
            $($vis $name: $crate::metrics::series::WorkerSeries<{ $labels }, { $cells }>,)+
        }

        impl $tables {
            $vis fn new(families: &$families) -> Self {
                Self { $($name: $crate::metrics::series::WorkerSeries::new(&families.$name),)+ }
            }
        }
    };
}
pub(super) use families;

/// The addresses and lengths of the texts of some labels.
#[derive(Debug, PartialEq, Eq)]
struct LabelAddresses<const LABELS: usize>([(usize, usize); LABELS]);

impl<const LABELS: usize> Hash for LabelAddresses<LABELS> {
    /// Hashes one word for each label: this runs for every request, and the standard hash of an array would need three.
    fn hash<H: Hasher>(&self, state: &mut H) {
        for (address, length) in self.0 {
            state.write_usize(address ^ length.rotate_right(8));
        }
    }
}

/// Mixes addresses. No peer chooses them, so only speed matters (the multiplier is that of Knuth, TAOCP 6.4: 2^64 over the golden ratio).
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, word: usize) {
        self.0 = (self.0.rotate_left(5) ^ word as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        // The high bits are mixed best, but the map also uses the low ones.
        self.0.rotate_left(26)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only<const L: usize, const C: usize>(family: &SeriesFamily<L, C>) -> ([Name; L], [u64; C]) {
        let sums = family.sums();
        assert_eq!(sums.len(), 1, "{sums:?}");
        sums.into_iter().next().unwrap()
    }

    #[test]
    fn cells_of_all_workers_are_added_up() {
        let family = Arc::new(SeriesFamily::<1, 2>::default());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let family = Arc::clone(&family);
                std::thread::spawn(move || {
                    let table = WorkerSeries::new(&family);
                    let name = Name::from("orders");
                    for _ in 0..1000 {
                        table.with([Label::Name(&name)], |series| {
                            series.add(0, 1);
                            series.add(1, 3);
                        });
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(only(&family), (["orders".into()], [4000, 12000]));
    }

    #[test]
    fn one_worker_may_subtract_what_another_one_added() {
        let family = Arc::new(SeriesFamily::<1, 1>::default());
        let (one, other) = (WorkerSeries::new(&family), WorkerSeries::new(&family));
        one.add([Label::Word("x")], 0, 1);
        one.add([Label::Word("x")], 0, 1);
        other.add([Label::Word("x")], 0, u64::MAX);
        assert_eq!(only(&family).1, [1]);
    }

    #[test]
    fn a_reload_with_the_same_names_keeps_the_series_and_forgets_the_old_addresses() {
        let family = Arc::new(SeriesFamily::<1, 1>::default());
        let table = WorkerSeries::new(&family);
        for _ in 0..10_000 {
            table.add([Label::Name(&Name::from("orders"))], 0, 1);
        }
        assert_eq!(only(&family), (["orders".into()], [10_000]));
        assert!(table.maps.borrow().by_address.len() < 100);
    }

    #[test]
    fn a_name_at_a_reused_address_is_not_taken_for_the_old_one() {
        let family = Arc::new(SeriesFamily::<1, 1>::default());
        let table = WorkerSeries::new(&family);
        table.add([Label::Name(&Name::from("upstream-same"))], 0, 1);
        for index in 0..1000 {
            // The series is known by then, so only the table keeps this allocation from being freed. An allocator tends to return the block
            // that was freed last.
            table.add([Label::Name(&Name::from("upstream-same"))], 0, 1);
            table.add([Label::Name(&Name::from(format!("upstream-{index:04}")))], 0, 1);
        }
        let sums = family.sums();
        assert_eq!(sums.len(), 1001);
        assert_eq!(sums[&["upstream-same".into()]], [1001]);
    }

    #[test]
    fn texts_that_share_an_address_are_distinguished_by_their_length() {
        let family = Arc::new(SeriesFamily::<1, 1>::default());
        let table = WorkerSeries::new(&family);
        let word: &'static str = "reset";
        table.add([Label::Word(word)], 0, 1);
        table.add([Label::Word(&word[..0])], 0, 1);
        assert_eq!(family.sums().len(), 2);
    }

    #[test]
    fn series_are_bounded_even_if_every_reload_brings_new_names() {
        let family = Arc::new(SeriesFamily::<2, 1>::default());
        let table = WorkerSeries::new(&family);
        for index in 0..MAX_SERIES + 500 {
            table.add([Label::Name(&Name::from(index.to_string())), Label::Word("x")], 0, 1);
        }
        table.add([Label::Name(&Name::from("7")), Label::Word("x")], 0, 1);
        let sums = family.sums();
        assert_eq!(sums.len(), MAX_SERIES + 1);
        assert_eq!(sums[&[OTHER.into(), OTHER.into()]], [500]);
        assert_eq!(sums[&["7".into(), "x".into()]], [2]);
    }
}
