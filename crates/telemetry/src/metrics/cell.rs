//! The positions of the values in the cells of an exchange.

use super::histogram;

pub(crate) const COUNT: usize = 0;
pub(crate) const RECEIVED: usize = 1;
pub(crate) const SENT: usize = 2;
pub(crate) const ATTEMPTS: usize = 3;
pub(crate) const TOTAL: usize = 4;
pub(crate) const HEAD: usize = TOTAL + histogram::CELLS;
pub(crate) const UPSTREAM: usize = HEAD + histogram::CELLS;
pub(crate) const ADDED: usize = UPSTREAM + histogram::CELLS;
/// Requests whose client waited and then ended its side; they still run until there is a response.
pub(crate) const LEFT: usize = ADDED + histogram::CELLS;
/// The number of cells.
pub(crate) const ALL: usize = LEFT + 1;
/// The cells of an endpoint: responses by class (1xx to 5xx, and without a status), failures, durations.
pub(crate) const CLASSES: usize = 6;
pub(crate) const FAILED: usize = CLASSES;
pub(crate) const ENDPOINT_TOTAL: usize = FAILED + 1;
/// The number of cells of an endpoint.
pub(crate) const ENDPOINT: usize = ENDPOINT_TOTAL + histogram::CELLS;
/// The first of two cells for connections: how many were opened.
pub(crate) const OPENED: usize = 0;
/// The second: how many are open now.
pub(crate) const ACTIVE: usize = 1;
