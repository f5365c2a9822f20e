//! Compares the whole drain and reload with a reference: no request is lost, whatever the interleaving.
//!
//! There are random clients, reloads and an end. The program's own control thread, workers, listeners and upstreams run on one thread with
//! the clock of the test. Each client must see exactly the answers of the reference, at exactly these instants, and the program must end at
//! the instant of the reference.

mod model;
mod world;

use proptest::{collection, prelude::*};

use self::model::{ListenerPlace, ReloadChange, ReloadHistory, ScriptedClient};

fn changes() -> impl Strategy<Value = ReloadChange> {
    use ReloadChange::{Broken, Extra, Route, Settings, Upstream};
    prop_oneof![3 => Just(Extra), 2 => Just(Settings), 2 => Just(Route), 1 => Just(Upstream), 1 => Just(Broken)]
}

fn clients() -> impl Strategy<Value = (ScriptedClient, Option<prop::sample::Index>)> {
    let to =
        prop_oneof![Just(ListenerPlace::Inbound), Just(ListenerPlace::Outbound), Just(ListenerPlace::Extra)];
    let requests = collection::vec((1_u64..40, 0_u64..80), 0..4);
    let requests =
        requests.prop_map(|all| all.into_iter().map(|(wait, needs)| (4 * wait, 4 * needs)).collect());
    let tied = prop_oneof![3 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)];
    (to, 0_u64..260, requests, any::<bool>(), tied).prop_map(|(to, at, requests, leaves, tied)| {
        let requests: Vec<_> = requests;
        let leaves = leaves && !requests.is_empty();
        (ScriptedClient { to, at: 4 * at + 1, tied: false, requests, leaves }, tied)
    })
}

fn histories() -> impl Strategy<Value = ReloadHistory> {
    let reloads = collection::btree_map(1_u64..200, changes(), 0..5);
    let drain_timeout = prop_oneof![Just(124), Just(244), Just(604), Just(1204)];
    let delay = prop_oneof![Just(0), Just(60)];
    (reloads, collection::vec(clients(), 1..8), 60_u64..200, delay, drain_timeout).prop_map(
        |(reloads, clients, stop, delay, drain_timeout)| {
            let stop = 4 * stop + 3;
            let reloads = reloads.into_iter().map(|(at, change)| (4 * at + 3, change));
            let reloads: Vec<_> = reloads.filter(|(at, _)| *at != stop && *at != stop + delay).collect();
            let mut history = ReloadHistory { reloads, clients: Vec::new(), stop, delay, drain_timeout };
            // In the same instant as a drain: the drain of the end, or of a listener that is removed.
            let goes = history
                .reloads
                .iter()
                .filter(|reload| reload.1 == ReloadChange::Extra && history.is_taken(reload));
            let goes: Vec<_> = goes.map(|(at, _)| *at).skip(1).step_by(2).collect();
            for (mut client, tied) in clients {
                if let Some(tied) = tied {
                    client.tied = true;
                    client.at = match client.to {
                        ListenerPlace::Extra if !goes.is_empty() => *tied.get(&goes),
                        _ => stop,
                    };
                    if let Some((_, needs)) = client.requests.first_mut() {
                        *needs += 2;
                    }
                }
                history.clients.push(client);
            }
            history
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn no_request_is_lost_and_each_connection_ends_when_it_should(history in histories()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build_local(tokio::runtime::LocalOptions::default())
            .unwrap();
        let outcome = runtime.block_on(world::run(&history));
        prop_assert_eq!(outcome, history.outcome());
    }
}
