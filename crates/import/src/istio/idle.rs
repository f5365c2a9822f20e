//! Fields of Istio's and the Gateway API's objects that have no effect on requests, or whose loss is soft.

use crate::remark::Impact::Soft;
use crate::unread::{
    IdleKeys,
    UnreadConsequence::{Lost, Nothing},
};

/// Keys whose content no importer reads. A key that is neither read nor in this list is reported as lost
/// ([`crate::unread`]).
pub(super) const KEYS: IdleKeys = &[
    ("export_to", Nothing),
    ("gateways", Nothing),
    ("location", Nothing),
    ("name", Nothing),
    ("parent_refs", Nothing),
    ("resolution", Nothing),
    ("selector", Nothing),
    ("stat_name", Nothing),
    ("target_ref", Nothing),
    ("target_refs", Nothing),
    ("workload_selector", Nothing),
    ("locality_lb_setting", Lost(Soft)),
    ("minimum_ring_size", Lost(Soft)),
    ("tcp_keepalive", Lost(Soft)),
    ("warmup", Lost(Soft)),
    ("warmup_duration_secs", Lost(Soft)),
];
