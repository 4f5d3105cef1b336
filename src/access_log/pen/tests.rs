//! Two workers' pens whose writer is stuck at a pipe that nobody reads.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::num::NonZeroU32;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use super::*;
use crate::access_log::captured::{Captured, Field};
use crate::access_log::line::tests;
use crate::access_log::writer::AccessLog;
use crate::config::{Item, LineFormat, LinePart, LogTarget};
use crate::metrics::Lanes;

/// A named pipe, and its end to read from.
fn pipe() -> (PathBuf, File) {
    let path = std::env::temp_dir().join(format!("corelane-pen-{}", std::process::id()));
    rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .unwrap();
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
    // Opening would wait for a writer otherwise.
    let reader = OpenOptions::new().read(true).custom_flags(nonblocking).open(&path).unwrap();
    rustix::fs::fcntl_setfl(&reader, OFlags::empty()).unwrap();
    (path, reader)
}

/// Lines that say their worker, their number and some more.
fn config(target: &Path) -> AccessLogConfig {
    let item = LinePart::Item;
    let blank = || LinePart::Text(" ".to_owned());
    let parts = vec![item(Item::Worker), blank(), item(Item::Epoch), blank(), item(Item::Target)];
    AccessLogConfig {
        target: LogTarget::File(target.to_owned()),
        format: LineFormat { parts, headers: Vec::new(), is_json: false },
        sample: NonZeroU32::MIN,
        bytes_max: BYTES_MAX,
    }
}

/// What it keeps is whole, in order, and nearly as much as it may be.
#[test]
fn a_target_that_stalls_costs_no_line_until_the_queue_is_full_of_lines() {
    let (path, mut reader) = pipe();
    let lanes = Lanes::new(2, 0);
    let log = AccessLog::start(config(&path), lanes.clone()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let mut captured = Captured::default();
    captured.keep(Field::Target, &[&[b'x'; 100]]);
    let mut pens = [Pen::new(log.inlet()), Pen::new(log.inlet())];
    let mut number = 0;
    // A line a sweep.
    let mut log_one = |pens: &mut [Pen; 2]| {
        number += 1;
        for (worker, pen) in pens.iter_mut().enumerate() {
            let entry = |_| Entry { worker, epoch: number, ..tests::entry(&captured) };
            pen.log(lanes.lane(worker), Instant::now(), entry);
            pen.flush();
        }
    };
    let sum = |counter| [0, 1].map(|worker| lanes.lane(worker).get(counter)).iter().sum::<u64>();
    while sum(Counter::AccessLogDropped) == 0 {
        log_one(&mut pens);
    }
    let bytes = sum(Counter::AccessLogLines) * 100;
    assert!(bytes > BYTES_MAX as u64 * 3 / 4, "dropped after {bytes} bytes");
    // The pipe and the other pen's chunk may have room yet.
    while sum(Counter::AccessLogDropped) < 1000 {
        log_one(&mut pens);
    }
    let read = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_count| text)
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    let is_behind = |pen: &Pen| pen.chunk.lines > 0 || pen.inlet.has_waiting();
    while pens.iter().any(is_behind) && Instant::now() < deadline {
        pens.iter_mut().for_each(Pen::flush);
        std::thread::yield_now();
    }
    let dropped = sum(Counter::AccessLogDropped);
    // The writer takes lines again.
    log_one(&mut pens);
    pens.iter_mut().zip(0..).for_each(|(pen, worker)| pen.finish(lanes.lane(worker)));
    log.end();
    let text = read.join().unwrap().unwrap();
    let mut last = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let [worker, number] = [words.next(), words.next()].map(|it| it.unwrap().parse().unwrap());
        let before: Option<u64> = last.insert(worker, number);
        assert!(before.is_none_or(|before| before < number), "{worker}: {number} after {before:?}");
    }
    assert_eq!(last, BTreeMap::from([(0, number), (1, number)]));
    assert_eq!(sum(Counter::AccessLogDropped), dropped);
    assert_eq!(text.lines().count() as u64, sum(Counter::AccessLogLines) - dropped);
}

const BYTES_MAX: usize = 4 * CHUNK_BYTES;
