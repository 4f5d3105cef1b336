//! Metrics: the text is what its format demands, the README knows each one, and figures are true.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use corelane::cli::{Cli, Machine};
use corelane::control::Vitals;
use corelane::control::prometheus::{Format, Sources, render};
use corelane::error::Cause;
use corelane::metrics::{By, Counter, Finished, Lanes, Latency, Method};
use corelane::upstream::endpoint::{Address, Endpoint, Slot, Standing, Tier, WEIGHT_UNIT};
use corelane::upstream::limit::Limits;
use corelane::upstream::snapshot::{Pool, Snapshot};

use crate::support::openmetrics::{Family, Scrape};

/// A scrape of two workers, in a process of this test's own.
fn sources() -> Sources {
    let lanes = Lanes::new(2, 1);
    for worker in 0..2 {
        let lane = lanes.lane(worker);
        (0..=worker).for_each(|_| lane.add(Counter::Requests));
        lane.add_cause(Cause::ConnectFailed);
        lane.record(Latency::Total, Duration::from_millis(10));
        let by = if worker == 0 { By::Endpoint(0) } else { By::Pool(0) };
        lane.finish(&Finished { method: Method::Put, status: 201, by, received: 10, sent: 20 });
    }
    lanes.lane(1).begin(0);
    let endpoint = Endpoint {
        slot: Slot { number: 0, generation: 0 },
        id: "default/127.0.0.1:80".to_owned(),
        address: Some(Address::Tcp(([127, 0, 0, 1], 80).into())),
        weight: WEIGHT_UNIT,
        tier: Tier::Primary,
        standing: Standing::Open,
        is_sick: false,
        limits: Arc::new(Limits::new(None, None, None)),
    };
    let flags = ["corelane", "--listen", "127.0.0.1:0", "--backend", "http://127.0.0.1:80"];
    let machine = Machine { cores: vec![0], parallelism: 1, descriptors: 1000 };
    let cli = Cli::read_flags(flags.into_iter().map(str::to_owned)).unwrap();
    let pool = cli.proxy.into_config(&machine).unwrap().pools.remove(0);
    let published =
        Snapshot::new(1, vec![Pool::new(Arc::new(pool), vec![endpoint]).into()]).publish();
    Sources { lanes, published, vitals: Arc::new(Vitals::default()), started: SystemTime::now() }
}

/// What promtool says of a text.
pub fn lint(text: &str) -> String {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let [out, errors] = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
    format!("{}{out}{errors}", if output.status.success() { "" } else { "failed: " })
}

#[test]
fn both_formats_say_the_same() {
    let sources = sources();
    let scrape = Scrape::read(&render(&sources, Format::OpenMetrics)).unwrap();
    for (series, value) in [
        ("corelane_requests_received_total", 3.0),
        ("corelane_worker_requests_received_total{worker=\"1\"}", 2.0),
        ("corelane_failures_total{cause=\"connect-failed\"}", 2.0),
        ("corelane_failures_total{cause=\"queue-full\"}", 0.0),
        ("corelane_request_duration_seconds_sum", 0.02),
        ("corelane_request_duration_seconds_count", 2.0),
        ("corelane_request_duration_seconds_bucket{le=\"0.008388608\"}", 0.0),
        ("corelane_request_duration_seconds_bucket{le=\"0.012582912\"}", 2.0),
        ("corelane_backend_requests_in_flight{backend=\"127.0.0.1:80\",pool=\"default\"}", 1.0),
        (
            "corelane_requests_total{backend=\"127.0.0.1:80\",method=\"PUT\",pool=\"default\",status_class=\"2xx\"}",
            1.0,
        ),
        (
            "corelane_requests_total{backend=\"none\",method=\"PUT\",pool=\"default\",status_class=\"2xx\"}",
            1.0,
        ),
        ("corelane_client_sent_bytes_total", 40.0),
        ("corelane_snapshot_epoch", 1.0),
    ] {
        assert_eq!(scrape.get(series), Some(value), "{series}");
    }
    for series in ["corelane_build_info", "process_start_time_seconds", "process_cpu_seconds_total"]
    {
        assert!(scrape.sum(series, &[]) > 0.0, "{series}");
    }
    let older = render(&sources, Format::Prometheus);
    assert_eq!(lint(&older), "", "{older}");
    for (name, family) in &scrape.families {
        let name = match family.kind.as_str() {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.clone(),
        };
        assert!(older.contains(&format!("# HELP {name} {}\n", family.help)), "{name}");
    }
}

#[test]
fn the_readme_knows_each_metric() {
    let scrape = Scrape::read(&render(&sources(), Format::OpenMetrics)).unwrap();
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let name_of = |(name, family): (&String, &Family)| {
        let suffix = match family.kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        format!("`{name}{suffix}`")
    };
    let names = scrape.families.iter().map(name_of);
    let missing: Vec<String> = names.filter(|name| !readme.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "metrics that README.md does not name: {missing:#?}");
}

#[test]
fn the_dashboard_for_grafana_asks_for_metrics_that_there_are() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/grafana/corelane.json");
    let text = std::fs::read_to_string(path).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let rows: Vec<&str> = panels
        .iter()
        .filter(|panel| panel["type"] == "row")
        .map(|row| row["title"].as_str().unwrap())
        .collect();
    assert_eq!(rows, ["Now", "Traffic", "Errors", "Latency", "Backends", "Workers", "Health"]);
    let scrape = Scrape::read(&render(&sources(), Format::OpenMetrics)).unwrap();
    let known: BTreeSet<String> = scrape.families.iter().flat_map(names_of_samples).collect();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut asked = 0;
    for panel in panels {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let names = target["expr"].as_str().unwrap().split(|c| !is_part(c));
            for name in names.filter(|it| it.starts_with("corelane_") || it.starts_with("process_"))
            {
                assert!(known.contains(name), "{} asks for {name}", panel["title"]);
                asked += 1;
            }
        }
    }
    assert!(asked > 40, "{asked}");
}

fn names_of_samples((name, family): (&String, &Family)) -> Vec<String> {
    let suffixes: &[&str] = match family.kind.as_str() {
        "counter" => &["_total"],
        "info" => &["_info"],
        "histogram" => &["_bucket", "_sum", "_count"],
        _ => &[""],
    };
    suffixes.iter().map(|suffix| format!("{name}{suffix}")).collect()
}
