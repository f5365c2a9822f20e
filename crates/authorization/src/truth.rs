//! Yes, no, or unsure (Kleene's strong three-valued logic).

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Truth {
    /// It doesn't hold.
    No,
    /// It can't be decided: the value can't be seen, or has more than one reading.
    Unsure,
    /// It holds.
    Yes,
}

impl Truth {
    /// Both hold.
    pub(crate) fn and(self, other: Self) -> Self {
        self.min(other)
    }

    /// One of them holds.
    pub(crate) fn or(self, other: Self) -> Self {
        self.max(other)
    }

    /// The opposite holds.
    pub(crate) const fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Unsure => Self::Unsure,
            Self::Yes => Self::No,
        }
    }

    /// The common result of two readings: unsure if they differ.
    pub(crate) fn agree(self, other: Self) -> Self {
        if self == other { self } else { Self::Unsure }
    }

    /// Makes "no" unsure, because not everything was visible.
    pub(crate) const fn no_is_unsure(self) -> Self {
        match self {
            Self::No => Self::Unsure,
            sure => sure,
        }
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}
