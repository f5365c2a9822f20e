//! Recordings of a real API server, replayed: `testdata/recorded` says how they were made.

use serde::Deserialize;

use super::*;

const LIST: &str = include_str!("../testdata/recorded/list.json");
const WATCH: &str = include_str!("../testdata/recorded/watch.jsonl");
const STEPS: &str = include_str!("../testdata/recorded/steps.json");

/// The expected endpoints after this many lines of the watch.
#[derive(Deserialize)]
struct RecordedStep {
    #[serde(rename = "step")]
    what: String,
    lines: usize,
    endpoints: Vec<String>,
}

#[tokio::test]
async fn what_a_real_api_server_said_is_followed_step_by_step() {
    let cluster = Cluster::new(http()).await;
    cluster.reply("200 OK", LIST);
    let events = cluster.watched("");
    let steps: Vec<RecordedStep> = serde_json::from_str(STEPS).unwrap();
    let lines: Vec<&str> = WATCH.lines().collect();
    let mut sent = 0;
    for RecordedStep { what, lines: until, endpoints } in &steps {
        for line in &lines[sent..*until] {
            events.send(format!("{line}\n")).unwrap();
        }
        sent = *until;
        let expected: Vec<&str> = endpoints.iter().map(String::as_str).collect();
        cluster.until(&expected).await;
        // Events that must not change the endpoints get the time to arrive.
        sleep(Duration::from_millis(50)).await;
        assert_eq!(cluster.endpoints(), expected, "{what}");
        assert_eq!(cluster.failure(), None, "{what}");
    }
    assert!(steps.len() > 10 && lines[sent..].iter().all(|line| line.contains("BOOKMARK")), "{sent}");
    for line in &lines[sent..] {
        events.send(format!("{line}\n")).unwrap();
    }
    drop(events);
    let _held = cluster.watched("");
    cluster.until_asked(3).await;
    let version = |text: &str| -> String {
        let value: Value = serde_json::from_str(text).unwrap();
        let version =
            value.pointer("/metadata/resourceVersion").or(value.pointer("/object/metadata/resourceVersion"));
        version.unwrap().as_str().unwrap().to_owned()
    };
    let (first, last) = (version(LIST), version(lines.last().unwrap()));
    let expected = ["list 0 first".to_owned(), format!("watch {first} first"), format!("watch {last} first")];
    assert_eq!(cluster.asked(), expected, "the watch goes on at the last bookmark");
}
