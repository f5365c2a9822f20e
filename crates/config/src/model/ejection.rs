//! When an endpoint is left out for a while because its calls failed.

use super::prelude::*;

section! {
    "`outlier_ejection`"
    /// Passive health checks: endpoints that fail get no calls for a time.
    // Envoy's outlier detection.
    pub struct OutlierEjection {
        /// 5xx answers, resets and failed connections in a row; 0 is off.
        consecutive_5xx: u32 = 5,
        /// Failures in a row that attache itself found (connect, reset, timeout); 0 is off.
        consecutive_local: u32 = 5,
        /// First ejection time; the n-th lasts n times as long.
        base: Duration as Positive = Duration::from_secs(30),
        /// Longest ejection.
        max: Duration as Positive = Duration::from_mins(5),
        /// The largest share of endpoints that may be ejected at once. Of two or more endpoints one may always be ejected, and one always
        /// stays.
        max_percent: f64 as Ratio = 0.1,
        /// How often `success_rate` and `failure_percentage` are checked.
        interval: Duration as Positive = Duration::from_secs(10),
        /// Ejects endpoints that fail much more often than the others. It is on by default; `off` switches it off.
        success_rate: Option<SuccessRate> as OffOr<Plain> = Some(SuccessRate::default()),
        /// Ejects endpoints that fail too often, without a comparison with the others. Off without it; `{}` has every default.
        #[schema(examples = [json!({ "threshold": "50%" })])]
        failure_percentage: Option<FailurePercentage> as OffOr<Plain> = None,
    }
    then Self::lengthen
}

impl HasOff for OutlierEjection {
    fn off() -> Self {
        Self { consecutive_5xx: 0, consecutive_local: 0, success_rate: None, ..Self::default() }
    }
}

impl OutlierEjection {
    /// If the file gives only a longer first ejection, the longest one becomes as long.
    fn lengthen(&mut self) {
        self.max = self.max.max(self.base);
    }
}

section! {
    "`success_rate`"
    /// Ejection of an endpoint whose success rate is far below the mean of all.
    pub struct SuccessRate: Eq {
        /// Endpoints with `request_volume` that a comparison needs.
        minimum_hosts: u32 = 5,
        /// Requests in an interval before an endpoint is compared.
        request_volume: u32 = 100,
        /// Standard deviations below the mean, in thousandths.
        stdev_factor: u32 = 1900,
    }
}

section! {
    "`failure_percentage`"
    /// Ejection of an endpoint if too many of its requests fail.
    pub struct FailurePercentage {
        /// The share of failures at which it is ejected.
        threshold: f64 as Ratio = 0.85,
        /// Endpoints with `request_volume` requests that are needed for a comparison.
        minimum_hosts: u32 = 5,
        /// Requests in an interval that an endpoint needs to be compared.
        request_volume: u32 = 50,
    }
}
