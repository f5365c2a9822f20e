//! Hosts on demand, under paused time and with scripted answers.

use attache_config::model::{AddressMatch, Dns};

use super::*;

fn forward(max_hosts: usize, deny: Vec<AddressMatch>) -> Arc<Upstream> {
    Arc::new(Upstream { address: Address::Authority { max_hosts, deny }, ..upstream("forward") })
}

fn metadata_denied() -> Vec<AddressMatch> {
    vec![AddressMatch { network: "169.254.0.0".parse().unwrap(), prefix: 16, port: None }]
}

#[tokio::test(start_paused = true)]
async fn simultaneous_requests_for_a_name_share_one_look_up() {
    let script = ScriptedLookup::slow(Duration::from_secs(1), [good(60, &["10.0.0.1"])]);
    let on_demand = OnDemand::start(forward(10, vec![]), script.clone(), &Dns::default());
    let (one, other) = (on_demand.hosts(), on_demand.hosts());
    let (a, b, c) =
        tokio::join!(one.get("orders", 80, None), other.get("ORDERS", 80, None), one.get("orders", 80, None));
    let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
    assert!(Arc::ptr_eq(&a, &b) && Arc::ptr_eq(&a, &c));
    assert_eq!(labels(&a), ["10.0.0.1:80"]);
    let before = Instant::now();
    assert!(Arc::ptr_eq(&a, &one.get("orders", 80, None).await.unwrap()));
    assert_eq!((before.elapsed(), script.asked_at().len()), (Duration::ZERO, 1));
    let other_port = one.get("orders", 81, None).await.unwrap();
    assert!(!Arc::ptr_eq(&a, &other_port), "another port is another host");
}

#[tokio::test(start_paused = true)]
async fn an_address_needs_no_look_up() {
    let script = ScriptedLookup::new([bad(Reason::DnsTimeout)]);
    let on_demand = OnDemand::start(forward(10, metadata_denied()), script.clone(), &Dns::default());
    let hosts = on_demand.hosts();
    assert_eq!(labels(&hosts.get("10.0.0.7", 8080, None).await.unwrap()), ["10.0.0.7:8080"]);
    assert_eq!(labels(&hosts.get("::7", 8080, None).await.unwrap()), ["[::7]:8080"]);
    let original = hosts.get_address("10.0.0.7:8080".parse().unwrap(), None).await.unwrap();
    assert!(Arc::ptr_eq(&original, &hosts.get("10.0.0.7", 8080, None).await.unwrap()));
    assert_eq!(hosts.get("169.254.169.254", 80, None).await.unwrap_err().reason, Reason::DeniedDestination);
    assert_eq!(
        hosts.get("::ffff:169.254.169.254", 80, None).await.unwrap_err().reason,
        Reason::DeniedDestination
    );
    assert!(script.asked_at().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_leads_to_a_denied_address_is_denied_at_first_and_at_every_refresh() {
    let script = ScriptedLookup::new([good(60, &["169.254.169.254"])]);
    let on_demand = OnDemand::start(forward(10, metadata_denied()), script, &Dns::default());
    assert_eq!(on_demand.hosts().get("evil", 80, None).await.unwrap_err().reason, Reason::DeniedDestination);

    let script = ScriptedLookup::new([good(60, &["10.0.0.1"]), good(60, &["169.254.169.254"])]);
    let on_demand = OnDemand::start(forward(10, metadata_denied()), script, &Dns::default());
    let shared = on_demand.hosts().get("evil", 80, None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(labels(&shared), ["10.0.0.1:80"], "rebound: the checked address stays");
    assert_eq!(shared.endpoints.load().failure, Some(Reason::DeniedDestination));

    let script = ScriptedLookup::new([good(60, &["169.254.169.254", "10.0.0.1"])]);
    let on_demand = OnDemand::start(forward(10, metadata_denied()), script, &Dns::default());
    let shared = on_demand.hosts().get("mixed", 80, None).await.unwrap();
    assert_eq!(labels(&shared), ["10.0.0.1:80"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_look_up_is_remembered_for_the_retry_interval() {
    let script = ScriptedLookup::new([bad(Reason::DnsNxdomain), good(60, &["10.0.0.1"])]);
    let on_demand = OnDemand::start(forward(10, vec![]), script.clone(), &Dns::default());
    let hosts = on_demand.hosts();
    assert_eq!(hosts.get("orders", 80, None).await.unwrap_err().reason, Reason::DnsNxdomain);
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(hosts.get("orders", 80, None).await.unwrap_err().reason, Reason::DnsNxdomain);
    assert_eq!(script.asked_at().len(), 1);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(hosts.get("orders", 80, None).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_the_wait_but_not_the_look_up() {
    let script = ScriptedLookup::slow(Duration::from_secs(4), [good(60, &["10.0.0.1"])]);
    let on_demand = OnDemand::start(forward(10, vec![]), script.clone(), &Dns::default());
    let hosts = on_demand.hosts();
    let before = Instant::now();
    let deadline = Some(before + Duration::from_secs(1));
    assert_eq!(hosts.get("orders", 80, deadline).await.unwrap_err().reason, Reason::DnsTimeout);
    assert_eq!(before.elapsed(), Duration::from_secs(1));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(hosts.get("orders", 80, Some(Instant::now())).await.is_err(), "a deadline of now is over");
    assert!(hosts.get("orders", 80, None).await.is_ok());
    assert_eq!(script.asked_at().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn above_max_hosts_the_least_recently_used_goes() {
    let script = ScriptedLookup::new([good(60, &["10.0.0.1"])]);
    let on_demand = OnDemand::start(forward(2, vec![]), script, &Dns::default());
    let hosts = on_demand.hosts();
    let a = hosts.get("a", 80, None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(31)).await;
    let b = hosts.get("b", 80, None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(31)).await;
    // From the worker's own cache: the control thread learns of it by the flag.
    hosts.get("a", 80, None).await.unwrap();
    hosts.get("c", 80, None).await.unwrap();
    assert!(Arc::ptr_eq(&a, &hosts.get("a", 80, None).await.unwrap()));
    assert!(b.endpoints.load().usable() == 1, "a request may still be choosing");
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(b.endpoints.load().endpoints.is_empty());
    assert!(!Arc::ptr_eq(&b, &hosts.get("b", 80, None).await.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn when_every_host_is_being_looked_up_the_next_is_refused() {
    let script = ScriptedLookup::slow(Duration::from_secs(5), [good(60, &["10.0.0.1"])]);
    let on_demand = OnDemand::start(forward(1, vec![]), script, &Dns::default());
    let hosts = on_demand.hosts();
    let (a, b) = tokio::join!(hosts.get("a", 80, None), hosts.get("b", 80, None));
    assert!(a.is_ok());
    assert_eq!(b.unwrap_err().reason, Reason::Overloaded);
}

#[tokio::test(start_paused = true)]
async fn an_unused_host_is_dropped_and_its_refresh_ends() {
    let script = ScriptedLookup::new([good(10, &["10.0.0.1"])]);
    let on_demand = OnDemand::start(forward(10, vec![]), script.clone(), &Dns::default());
    let hosts = on_demand.hosts();
    let shared = hosts.get("orders", 80, None).await.unwrap();
    let endpoint = shared.endpoints.load().endpoints[0].clone();
    tokio::time::sleep(Duration::from_secs(240)).await;
    assert!(endpoint.usable());
    tokio::time::sleep(Duration::from_secs(180)).await;
    let asked = script.asked_at().len();
    assert!(endpoint.removed.load(std::sync::atomic::Ordering::Relaxed));
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(script.asked_at().len(), asked);
    assert_eq!(labels(&hosts.get("orders", 80, None).await.unwrap()), ["10.0.0.1:80"], "and found anew");
}

#[tokio::test(start_paused = true)]
async fn after_the_end_of_the_control_thread_new_hosts_are_refused() {
    let on_demand =
        OnDemand::start(forward(10, vec![]), ScriptedLookup::new([good(60, &["10.0.0.1"])]), &Dns::default());
    let hosts = on_demand.hosts();
    let known = hosts.get("a", 80, None).await.unwrap();
    drop(on_demand);
    tokio::task::yield_now().await;
    assert!(Arc::ptr_eq(&known, &hosts.get("a", 80, None).await.unwrap()));
    assert_eq!(hosts.get("b", 80, None).await.unwrap_err().reason, Reason::ShuttingDown);
}
