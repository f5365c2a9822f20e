use std::{fs, io::Write, sync::Condvar};

use attache_config::model::{AccessLog as Config, LogFile};

use super::*;

const LONG: Duration = Duration::from_secs(60);

fn to_file(path: &std::path::Path) -> Config {
    Config { to: LogTarget::File(LogFile::at(path.into())), ..Config::default() }
}

fn exchange(path: &str) -> Exchange {
    let exchange = Exchange::new("outbound".into(), "http1", None);
    exchange.path.replace(path.into());
    exchange
}

fn dropped(metrics: &Metrics, cause: &str) -> u64 {
    let page = metrics.render();
    let start = format!("attache_access_log_dropped_total{{cause=\"{cause}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&*start)).unwrap().parse().unwrap()
}

/// Waits until the file at this path has this many lines; the file may be replaced meanwhile.
fn wait_for_lines(path: &std::path::Path, count: usize) -> Vec<String> {
    let begun = std::time::Instant::now();
    loop {
        let lines: Vec<_> = fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect();
        if lines.len() >= count {
            return lines;
        }
        assert!(begun.elapsed() < LONG, "{lines:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn every_line_of_every_worker_is_in_the_file_after_the_close() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    fs::write(&path, "what was there\n").unwrap();
    let metrics = Metrics::new();
    let log = AccessLogHandle::start(&to_file(&path), &metrics).unwrap();
    let workers: Vec<_> = (0..3)
        .map(|worker| {
            let (log, metrics) = (log.clone(), metrics.clone());
            thread::spawn(move || {
                let logger = log.logger(&metrics.worker());
                for index in 0..500 {
                    logger.write(&exchange(&format!("/{worker}/{index}")), Duration::ZERO);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    assert!(log.close(LONG));
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("what was there\n"), "appended");
    assert_eq!(text.lines().count(), 1501);
    for worker in 0..3 {
        for index in 0..500 {
            assert!(text.contains(&format!(" /{worker}/{index} ")), "/{worker}/{index}");
        }
    }
}

#[test]
fn a_line_is_written_without_waiting_for_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let metrics = Metrics::new();
    let log = AccessLogHandle::start(&to_file(&path), &metrics).unwrap();
    log.logger(&metrics.worker()).write(&exchange("/only"), Duration::ZERO);
    assert!(wait_for_lines(&path, 1)[0].contains(" /only "));
}

#[test]
fn after_a_rotation_lines_go_to_the_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let metrics = Metrics::new();
    let log = AccessLogHandle::start(&to_file(&path), &metrics).unwrap();
    let logger = log.logger(&metrics.worker());
    logger.write(&exchange("/before"), Duration::ZERO);
    wait_for_lines(&path, 1);
    fs::rename(&path, &old).unwrap();
    logger.write(&exchange("/between"), Duration::ZERO);
    wait_for_lines(&old, 2);
    log.reopen();
    let begun = std::time::Instant::now();
    while !path.exists() {
        assert!(begun.elapsed() < LONG);
        thread::sleep(Duration::from_millis(2));
    }
    logger.write(&exchange("/after"), Duration::ZERO);
    assert!(log.close(LONG));
    assert!(fs::read_to_string(&path).unwrap().contains(" /after "));
    assert!(!fs::read_to_string(&old).unwrap().contains(" /after "));
}

#[test]
fn a_file_that_can_not_be_opened_again_stays_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logs/access.log");
    fs::create_dir(folder.path().join("logs")).unwrap();
    let metrics = Metrics::new();
    let log = AccessLogHandle::start(&to_file(&path), &metrics).unwrap();
    let logger = log.logger(&metrics.worker());
    logger.write(&exchange("/before"), Duration::ZERO);
    wait_for_lines(&path, 1);
    let moved = folder.path().join("moved");
    fs::rename(folder.path().join("logs"), &moved).unwrap();
    log.reopen();
    logger.write(&exchange("/after"), Duration::ZERO);
    assert!(log.close(LONG));
    assert_eq!(fs::read_to_string(moved.join("access.log")).unwrap().lines().count(), 2);
}

/// A destination that blocks until its gate is opened. It fails while the test tells it to fail.
#[derive(Clone, Default)]
struct GatedDestination(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    open: bool,
    failures: usize,
    text: String,
}

impl GatedDestination {
    fn set(&self, change: impl FnOnce(&mut GateState)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }
}

impl Write for GatedDestination {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let state = self.0.0.lock().unwrap();
        let mut state = self.0.1.wait_while(state, |state| !state.open).unwrap();
        if state.failures > 0 {
            state.failures -= 1;
            state.text.push_str("half a line");
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        state.text.push_str(std::str::from_utf8(bytes).unwrap());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn start_at(gate: &GatedDestination, metrics: &Metrics) -> AccessLogHandle {
    let gate = gate.clone();
    let open: OpenDestination = Box::new(move || Ok(Box::new(gate.clone())));
    AccessLogHandle::start_with(open, LogRules::default(), metrics).unwrap()
}

#[test]
fn a_destination_that_hangs_costs_lines_and_never_blocks_the_worker() {
    let (gate, metrics) = (GatedDestination::default(), Metrics::new());
    let log = start_at(&gate, &metrics);
    let logger = log.logger(&metrics.worker());
    let all = 40_000;
    // If a line waited for a full queue, this would never end.
    for _ in 0..all {
        logger.write(&exchange("/"), Duration::ZERO);
    }
    let lost = dropped(&metrics, "queue-full");
    assert!(lost > all / 4, "{lost}");
    assert!(!log.close(Duration::from_millis(1)), "it hangs");
    gate.set(|state| state.open = true);
    assert!(log.close(LONG));
    let written = gate.0.0.lock().unwrap().text.lines().count() as u64;
    assert_eq!(written + lost, all, "every line is either written or counted");
}

#[test]
fn long_lines_can_not_fill_the_memory() {
    let (gate, metrics) = (GatedDestination::default(), Metrics::new());
    let log = start_at(&gate, &metrics);
    let logger = log.logger(&metrics.worker());
    let exchange = exchange(&"x".repeat(60 << 10));
    for _ in 0..200 {
        logger.write(&exchange, Duration::ZERO);
    }
    let Some((shared, _)) = &log.0 else { panic!("on") };
    assert!(shared.queue.len() <= queue::QUEUE_BYTES);
    assert!(dropped(&metrics, "queue-full") > 100);
    gate.set(|state| state.open = true);
    assert!(log.close(LONG));
    assert_eq!(shared.queue.len(), 0);
}

#[test]
fn a_failed_write_is_counted_and_the_next_line_starts_on_a_new_line() {
    let (gate, metrics) = (GatedDestination::default(), Metrics::new());
    gate.set(|state| (state.open, state.failures) = (true, 1));
    let log = start_at(&gate, &metrics);
    let logger = log.logger(&metrics.worker());
    logger.write(&exchange("/lost"), Duration::ZERO);
    let begun = std::time::Instant::now();
    while dropped(&metrics, "write-failed") == 0 {
        assert!(begun.elapsed() < LONG);
        thread::sleep(Duration::from_millis(2));
    }
    logger.write(&exchange("/kept"), Duration::ZERO);
    assert!(log.close(LONG));
    let text = gate.0.0.lock().unwrap().text.clone();
    let (half, kept) = text.split_once('\n').unwrap();
    assert_eq!(half, "half a line");
    assert!(kept.contains(" /kept "), "{text}");
}

#[test]
fn without_a_destination_there_is_no_thread_and_no_line() {
    let metrics = Metrics::new();
    let log = AccessLogHandle::start(&Config::default(), &metrics).unwrap();
    assert!(log.0.is_none());
    log.logger(&metrics.worker()).write(&exchange("/"), Duration::ZERO);
    log.reopen();
    assert!(log.close(Duration::ZERO));
    assert_eq!(dropped(&metrics, "queue-full"), 0);
}

#[test]
fn a_path_that_can_not_be_opened_is_an_error_that_names_it() {
    let error =
        AccessLogHandle::start(&to_file("/nonexistent/access.log".as_ref()), &Metrics::new()).unwrap_err();
    insta::assert_snapshot!(error, @r#"the access log /nonexistent/access.log can't be opened for appending (No such file or directory (os error 2)): create its folder, or change `access_log.to`"#);
}

#[test]
fn lines_after_the_end_are_counted_as_lost() {
    let (gate, metrics) = (GatedDestination::default(), Metrics::new());
    gate.set(|state| state.open = true);
    let log = start_at(&gate, &metrics);
    assert!(log.close(LONG));
    log.logger(&metrics.worker()).write(&exchange("/late"), Duration::ZERO);
    assert_eq!(dropped(&metrics, "queue-full"), 1);
}
