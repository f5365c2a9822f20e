//! Models of the state that workers share. loom runs them with every interleaving of their threads and every order of
//! their loads and stores that the memory model allows, up to a number of preemptions (`LOOM_MAX_PREEMPTIONS`, 2).
//!
//! The modules are the program's own files, compiled here a second time: they take the types that threads share from
//! `crate::sync`, which has loom's types here. They need no other crate of attache, so building and running them takes
//! seconds. `--cfg loom` would do the same inside of the crates, but it removes the network from tokio, and builds all
//! crates again.
//!
//! `cargo xtask loom [MODEL...]`

#![allow(dead_code, reason = "a model needs a part of its module")]

#[path = "../../../crates/upstream/src/count.rs"]
mod count;
#[path = "../../../crates/upstream/src/flag.rs"]
mod flag;
#[path = "../../../crates/resilience/src/budget/floor.rs"]
mod floor;
#[path = "../../../crates/resilience/src/adaptive/limit.rs"]
mod limit;
#[path = "../../../crates/telemetry/src/metrics/sequence.rs"]
mod sequence;
#[path = "../../../crates/upstream/src/circuit/state.rs"]
mod state;
#[path = "../../../crates/upstream/src/pool/waiting.rs"]
mod waiting;
#[path = "../../../crates/upstream/src/circuit/window.rs"]
mod window;

mod breaker;
mod counts;
mod flags;
mod measurement;
mod sync;
mod values;

use std::{
    env, panic,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

/// A model: the rule that must hold, and the function that asserts it.
type Model = (&'static str, fn());

/// Preemptions of a thread in one run. One or two show most errors of memory order.
const PREEMPTIONS: usize = 2;

static RUNS: AtomicU64 = AtomicU64::new(0);

fn main() -> ExitCode {
    let wanted: Vec<String> = env::args().skip(1).collect();
    let models =
        [breaker::MODELS, counts::MODELS, flags::MODELS, measurement::MODELS, values::MODELS].concat();
    let mut failed = false;
    for (name, model) in models {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            continue;
        }
        RUNS.store(0, Relaxed);
        let began = Instant::now();
        let outcome = panic::catch_unwind(|| {
            let mut builder = loom::model::Builder::new();
            builder.preemption_bound = builder.preemption_bound.or(Some(PREEMPTIONS));
            builder.max_branches = 10_000;
            builder.check(move || {
                RUNS.fetch_add(1, Relaxed);
                model();
            });
        });
        let verdict = if outcome.is_ok() { "holds" } else { "FAILS" };
        failed |= outcome.is_err();
        println!(
            "{verdict}  {name}: {} interleavings, {:.1} s",
            RUNS.load(Relaxed),
            began.elapsed().as_secs_f64()
        );
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
