//! The position of each value in the cells of an exchange.

use super::histogram;

pub(crate) const COUNT: usize = 0;
pub(crate) const RECEIVED: usize = 1;
pub(crate) const SENT: usize = 2;
pub(crate) const ATTEMPTS: usize = 3;
pub(crate) const TOTAL: usize = 4;
pub(crate) const HEAD: usize = TOTAL + histogram::CELLS;
pub(crate) const UPSTREAM: usize = HEAD + histogram::CELLS;
pub(crate) const ADDED: usize = UPSTREAM + histogram::CELLS;
/// Requests whose client ended its side after it had waited; they go on until there is an answer.
pub(crate) const LEFT: usize = ADDED + histogram::CELLS;
/// How many there are.
pub(crate) const ALL: usize = LEFT + 1;
/// An endpoint's cells: answers by class (1xx to 5xx, and none), failures, durations.
pub(crate) const CLASSES: usize = 6;
pub(crate) const FAILED: usize = CLASSES;
pub(crate) const ENDPOINT_TOTAL: usize = FAILED + 1;
/// How many an endpoint has.
pub(crate) const ENDPOINT: usize = ENDPOINT_TOTAL + histogram::CELLS;
/// The first of two cells of connections: opened ever, and open now.
pub(crate) const OPENED: usize = 0;
/// The second.
pub(crate) const ACTIVE: usize = 1;
