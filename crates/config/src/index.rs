//! An index of keys: a look-up takes one step, however many keys there are.
//!
//! Rule: everything that grows with the config (keys, upstreams, routes) is looked up here, and no list of it is searched. So a config of
//! n parts is checked in n steps. Tests count the look-ups.

use std::{
    borrow::Borrow,
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
};

/// For each key, the first value that was given for it.
#[derive(Clone, Debug)]
pub(crate) struct FirstByKey<K, V>(HashMap<K, V>);

impl<K, V> Default for FirstByKey<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq, V> FirstByKey<K, V> {
    /// The first value of the key.
    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        looked_up();
        self.0.get(key)
    }

    /// Whether the key was given.
    pub(crate) fn has<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Keeps the value if the key is new; otherwise returns the key's first value.
    pub(crate) fn keep(&mut self, key: K, value: V) -> Option<&V> {
        looked_up();
        match self.0.entry(key) {
            Entry::Occupied(first) => Some(first.into_mut()),
            Entry::Vacant(free) => {
                free.insert(value);
                None
            }
        }
    }
}

impl<K: Hash + Eq, V> FromIterator<(K, V)> for FirstByKey<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(all: I) -> Self {
        let mut index = Self::default();
        for (key, value) in all {
            index.keep(key, value);
        }
        index
    }
}

fn looked_up() {
    #[cfg(test)]
    tests::LOOK_UPS.with(|count| count.set(count.get() + 1));
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, fmt::Write as _};

    thread_local! {
        pub(super) static LOOK_UPS: Cell<u64> = const { Cell::new(0) };
    }

    /// Look-ups while a text is checked, and what is found.
    fn look_ups(text: &str) -> (u64, String) {
        let before = LOOK_UPS.with(Cell::get);
        let found = crate::parse(text, None, &|_| None);
        let said = found
            .map_or_else(|found| found.to_string(), |config| format!("{} warnings", config.warnings.len()));
        (LOOK_UPS.with(Cell::get) - before, said)
    }

    fn config(parts: usize, route: &dyn Fn(usize) -> String) -> String {
        let mut text = String::from("listeners:\n  out:\n    bind: ':1'\n    routes:\n");
        for part in 0..parts {
            let _ = writeln!(text, "      - {{ {} }}", route(part));
        }
        text.push_str("upstreams:\n");
        for part in 0..parts {
            let _ = writeln!(text, "  u{part}: http://u{part}.test");
        }
        text
    }

    #[test]
    fn four_times_the_parts_are_checked_in_four_times_the_steps() {
        let routes: [(&str, &dyn Fn(usize) -> String); 6] = [
            ("0 warnings", &|n| format!("name: r{n}, match: {{ host: h{n}.test }}, to: u{n}")),
            // 200 are shown, and one says how many more there are.
            ("201 warnings", &|n| format!("match: {{ path: /same }}, to: u{}", n.min(1))),
            ("is already called `same`", &|n| format!("name: same, match: {{ path: /{n} }}, to: u{n}")),
            ("there is no upstream `v", &|n| format!("match: {{ path: /{n} }}, to: v{n}")),
            ("unknown key `hsot`", &|n| format!("match: {{ hsot: h{n}.test }}, to: u{n}")),
            ("is given twice", &|n| format!("to: u{n}, to: u{n}")),
        ];
        for (expected, route) in routes {
            let (few, said) = look_ups(&config(300, route));
            assert!(said.contains(expected), "{expected}: {said}");
            let (many, _) = look_ups(&config(1200, route));
            assert!(few >= 300 && many <= few * 4 + 100, "{expected}: {few} and {many} look-ups");
        }
    }
}
