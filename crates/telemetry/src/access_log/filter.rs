//! Decides which lines are written.
//!
//! Rule: a filter matches if all its conditions hold, and a line is written if one filter matches. The random share is tested last, so that
//! it is a share of the lines that match otherwise.

use std::time::Duration;

use attache_config::model::LogFilter;

use crate::Exchange;

/// Whether the line of this exchange is written. It allocates nothing.
pub(crate) fn passes(filters: &[LogFilter], exchange: &Exchange, total: Duration) -> bool {
    filters.is_empty() || filters.iter().any(|filter| holds(filter, exchange, total))
}

fn holds(filter: &LogFilter, exchange: &Exchange, total: Duration) -> bool {
    let status = exchange.outcome();
    let by_route = || {
        let route = exchange.route.borrow();
        route.as_ref().is_some_and(|route| filter.routes.contains(route))
    };
    (!filter.errors || exchange.reason.get().is_some() || status >= 500)
        && (filter.status.is_empty() || filter.status.iter().any(|range| range.contains(status)))
        && filter.slower_than.is_none_or(|least| total >= least)
        && (filter.routes.is_empty() || by_route())
        && filter.sample.is_none_or(|share| fastrand::f64() < share)
}

#[cfg(test)]
mod tests {
    use attache_config::model::StatusRange;

    use super::*;
    use crate::Reason;

    const SECOND: Duration = Duration::from_secs(1);

    fn exchange(status: u16, reason: Option<Reason>) -> Exchange {
        let exchange = Exchange::new("outbound".into(), "http1", None);
        exchange.status.set(status);
        exchange.reason.set(reason);
        exchange.route.replace(Some("orders".into()));
        exchange
    }

    #[test]
    fn all_conditions_of_a_filter_must_hold_and_one_matching_filter_is_enough() {
        let errors = LogFilter { errors: true, ..LogFilter::default() };
        let slow = LogFilter { slower_than: Some(SECOND), ..LogFilter::default() };
        let both = LogFilter { errors: true, ..slow.clone() };
        let (good, bad) = (exchange(200, None), exchange(503, Some(Reason::NoRoute)));
        assert!(passes(&[], &good, SECOND));
        assert!(!passes(std::slice::from_ref(&errors), &good, SECOND));
        assert!(passes(std::slice::from_ref(&errors), &bad, SECOND));
        assert!(
            passes(std::slice::from_ref(&errors), &exchange(500, None), SECOND),
            "the upstream's own 500"
        );
        assert!(passes(std::slice::from_ref(&errors), &exchange(0, Some(Reason::IdleTimeout)), SECOND));
        assert!(passes(&[errors.clone(), slow.clone()], &good, SECOND));
        assert!(!passes(&[errors, slow], &good, SECOND / 2));
        assert!(!passes(std::slice::from_ref(&both), &good, SECOND));
        assert!(!passes(std::slice::from_ref(&both), &bad, SECOND / 2));
        assert!(passes(&[both], &bad, SECOND));
    }

    #[test]
    fn statuses_routes_and_shares() {
        let status = LogFilter { status: vec![StatusRange { from: 400, to: 499 }], ..LogFilter::default() };
        assert!(passes(std::slice::from_ref(&status), &exchange(404, None), SECOND));
        assert!(!passes(&[status], &exchange(500, None), SECOND));
        let route = |name: &str| [LogFilter { routes: vec![name.into()], ..LogFilter::default() }];
        assert!(passes(&route("orders"), &exchange(200, None), SECOND));
        assert!(!passes(&route("other"), &exchange(200, None), SECOND));
        let share = |share| [LogFilter { sample: Some(share), ..LogFilter::default() }];
        let passed = |filter: [LogFilter; 1]| {
            (0..10_000).filter(|_| passes(&filter, &exchange(200, None), SECOND)).count()
        };
        assert_eq!(passed(share(0.0)), 0);
        assert_eq!(passed(share(1.0)), 10_000);
        // For a fair share of a tenth, ten standard deviations are 300.
        assert!((700..=1300).contains(&passed(share(0.1))));
    }
}
