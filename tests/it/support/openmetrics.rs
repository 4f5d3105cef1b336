//! A strict reader of OpenMetrics text, written from its specification: what it does not know, or
//! what a family's type does not allow, it refuses with the line.

use std::collections::{BTreeMap, BTreeSet};

/// What a scrape said.
#[derive(Debug, Default)]
pub struct Scrape {
    /// By name, which for a counter is without `_total`.
    pub families: BTreeMap<String, Family>,
    values: BTreeMap<String, f64>,
}

/// A metric family.
#[derive(Debug, Default)]
pub struct Family {
    /// counter, gauge, histogram or info.
    pub kind: String,
    pub help: String,
    pub unit: String,
    pub samples: Vec<Sample>,
}

/// A line with a value.
#[derive(Clone, Debug)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Scrape {
    /// Reads a whole text.
    pub fn read(text: &str) -> Result<Scrape, String> {
        let body = text.strip_suffix("# EOF\n").ok_or("no # EOF at the end")?;
        let (mut scrape, mut current) = (Scrape::default(), String::new());
        for line in body.split_terminator('\n') {
            scrape.read_line(line, &mut current).map_err(|error| format!("{error}: {line}"))?;
        }
        for (name, family) in &scrape.families {
            family.check(name).map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(scrape)
    }

    fn read_line(&mut self, line: &str, current: &mut String) -> Result<(), String> {
        if let Some(about) = line.strip_prefix("# ") {
            let mut words = about.splitn(3, ' ');
            let (Some(what), Some(name), Some(said)) = (words.next(), words.next(), words.next())
            else {
                return Err("half a line".to_owned());
            };
            if name != current {
                check_name(name, false)?;
                if self.families.insert(name.to_owned(), Family::default()).is_some() {
                    return Err("a family in two places".to_owned());
                }
                *current = name.to_owned();
            }
            return self.families.get_mut(name).unwrap().describe(what, said);
        }
        let sample = Sample::read(line)?;
        let family = self.families.get_mut(current).ok_or("a sample of no family")?;
        family.check_sample(current, &sample)?;
        let key = key_of(&sample.name, &sample.labels);
        if self.values.insert(key, sample.value).is_some() {
            return Err("a series in two places".to_owned());
        }
        family.samples.push(sample);
        Ok(())
    }

    /// The value of a series, `name{label="value",…}` with its labels in the order of their names.
    pub fn get(&self, series: &str) -> Option<f64> {
        self.values.get(series).copied()
    }

    /// The sum of all series of this name whose labels have these values.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let samples = self.families.values().flat_map(|family| &family.samples);
        let has = |sample: &Sample, (label, value): (&str, &str)| {
            sample.labels.get(label).is_some_and(|it| it == value)
        };
        samples
            .filter(|sample| sample.name == name && labels.iter().all(|it| has(sample, *it)))
            .map(|sample| sample.value)
            .sum()
    }

    /// The samples that may never grow less: counters, and a histogram's counts and sum.
    pub fn growing(&self) -> BTreeMap<String, f64> {
        let growing = |family: &&Family| matches!(family.kind.as_str(), "counter" | "histogram");
        let samples = self.families.values().filter(growing).flat_map(|family| &family.samples);
        samples.map(|it| (key_of(&it.name, &it.labels), it.value)).collect()
    }
}

impl Family {
    fn describe(&mut self, what: &str, said: &str) -> Result<(), String> {
        let field = match what {
            _ if !self.samples.is_empty() => return Err("a description after samples".to_owned()),
            "TYPE" if !["counter", "gauge", "histogram", "info"].contains(&said) => {
                return Err("an unknown type".to_owned());
            }
            "TYPE" => &mut self.kind,
            "HELP" => &mut self.help,
            "UNIT" => &mut self.unit,
            _ => return Err("an unknown comment".to_owned()),
        };
        if !field.is_empty() || said.is_empty() {
            return Err("described twice, or by nothing".to_owned());
        }
        *field = said.to_owned();
        Ok(())
    }

    fn check_sample(&self, name: &str, sample: &Sample) -> Result<(), String> {
        let suffix = sample.name.strip_prefix(name).ok_or("a sample of another family")?;
        let is_le = sample.labels.contains_key("le");
        match (self.kind.as_str(), suffix) {
            ("counter", "_total") | ("histogram", "_sum") if sample.value >= 0.0 && !is_le => {}
            ("histogram", "_count") if is_whole(sample.value) && !is_le => {}
            ("histogram", "_bucket") if is_whole(sample.value) && is_le => {}
            ("gauge", "") if !is_le => {}
            ("info", "_info") if sample.value == 1.0 => {}
            (kind, suffix) => return Err(format!("no sample of a {kind}: {suffix:?}")),
        }
        Ok(())
    }

    fn check(&self, name: &str) -> Result<(), String> {
        if self.kind.is_empty() || self.help.is_empty() {
            return Err("no type or no help".to_owned());
        }
        if !self.unit.is_empty() && !name.ends_with(&format!("_{}", self.unit)) {
            return Err(format!("the name does not end by the unit {}", self.unit));
        }
        if self.kind == "histogram" { self.check_histogram(name) } else { Ok(()) }
    }

    /// Each set of labels has ascending bounds, growing counts, an infinite bucket and its sum.
    fn check_histogram(&self, name: &str) -> Result<(), String> {
        let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        let mut others: BTreeSet<String> = BTreeSet::new();
        for sample in &self.samples {
            let mut labels = sample.labels.clone();
            match labels.remove("le") {
                Some(bound) => {
                    let bound = read_number(&bound).ok_or("a bound that is no number")?;
                    let of = buckets.entry(key_of(name, &labels)).or_default();
                    of.push((bound, sample.value));
                }
                None => {
                    others.insert(format!("{} {}", key_of(name, &labels), sample.name));
                }
            }
        }
        for (labels, buckets) in &buckets {
            let grows = |pair: &[(f64, f64)]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1;
            let (last, all) = *buckets.last().unwrap();
            let is_complete = ["_sum", "_count"]
                .iter()
                .all(|suffix| others.contains(&format!("{labels} {name}{suffix}")));
            let count = self.samples.iter().find(|sample| {
                sample.name == format!("{name}_count") && key_of(name, &sample.labels) == *labels
            });
            if !buckets.windows(2).all(grows)
                || last != f64::INFINITY
                || !is_complete
                || count.is_none_or(|count| count.value != all)
            {
                return Err(format!("buckets of {labels}: {buckets:?}"));
            }
        }
        if others.len() == 2 * buckets.len() { Ok(()) } else { Err("no buckets".to_owned()) }
    }
}

impl Sample {
    fn read(line: &str) -> Result<Sample, String> {
        let end = line.find(['{', ' ']).ok_or("no value")?;
        let (name, mut rest) = line.split_at(end);
        check_name(name, false)?;
        let mut labels = BTreeMap::new();
        if let Some(mut inside) = rest.strip_prefix('{') {
            loop {
                let (label, after) = inside.split_once("=\"").ok_or("a label without a value")?;
                check_name(label, true)?;
                let (value, after) = read_value(after)?;
                if labels.insert(label.to_owned(), value).is_some() {
                    return Err("a label twice".to_owned());
                }
                match (after.strip_prefix(','), after.strip_prefix('}')) {
                    (Some(more), _) => inside = more,
                    (None, Some(after)) => {
                        rest = after;
                        break;
                    }
                    (None, None) => return Err("labels without an end".to_owned()),
                }
            }
        }
        let number = rest.strip_prefix(' ').ok_or("no space before the value")?;
        let value = read_number(number).filter(|it| it.is_finite()).ok_or("no number")?;
        Ok(Sample { name: name.to_owned(), labels, value })
    }
}

/// A label's value, and what follows its quote.
fn read_value(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match letters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, letter @ ('"' | '\\'))) => value.push(letter),
                _ => return Err("an unknown escape".to_owned()),
            },
            letter => value.push(letter),
        }
    }
    Err("a label's value without an end".to_owned())
}

fn check_name(name: &str, is_label: bool) -> Result<(), String> {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_' || (c == ':' && !is_label);
    let is_good = name.starts_with(is_first)
        && name.chars().all(|c| is_first(c) || c.is_ascii_digit())
        && !(is_label && name.starts_with("__"));
    if is_good { Ok(()) } else { Err(format!("no name: {name:?}")) }
}

fn read_number(text: &str) -> Option<f64> {
    let is_number = text == "+Inf"
        || text.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | '-' | '+'));
    text.parse().ok().filter(|_| is_number)
}

fn is_whole(value: f64) -> bool {
    value >= 0.0 && value.fract() == 0.0
}

fn key_of(name: &str, labels: &BTreeMap<String, String>) -> String {
    let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v:?}")).collect();
    if labels.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", labels.join(",")) }
}

#[test]
fn the_reader_refuses_what_the_format_does_not_allow() {
    let good = "# HELP a A.\n# TYPE a counter\na_total{b=\"c\"} 1\n# EOF\n";
    assert_eq!(Scrape::read(good).unwrap().get("a_total{b=\"c\"}"), Some(1.0));
    for (from, to) in [
        ("# EOF\n", ""),
        ("a_total", "a"),
        ("_total{b=\"c\"} 1", "_total{b=\"c\"} -1"),
        ("counter", "counted"),
        ("a_total{b=\"c\"} 1", "a_total{b=\"c\"} 1\na_total{b=\"c\"} 1"),
        ("{b=\"c\"}", "{b=\"c\\d\"}"),
        ("{b=\"c\"}", "{b=\"c\",}"),
        ("{b=\"c\"}", "{1=\"c\"}"),
        (" 1\n", " one\n"),
        ("# HELP a A.\n", ""),
        ("# EOF", "\n# EOF"),
        ("# TYPE a counter", "# TYPE a counter\n# UNIT a seconds"),
    ] {
        let bad = good.replace(from, to);
        assert!(Scrape::read(&bad).is_err(), "{bad}");
    }
    let histogram = "# HELP h H.\n# TYPE h histogram\nh_sum 3.0\nh_count 2\n\
                     h_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 2\n# EOF\n";
    Scrape::read(histogram).unwrap();
    for (from, to) in [
        ("h_sum 3.0\n", ""),
        ("h_count 2", "h_count 3"),
        ("{le=\"1.0\"} 1", "{le=\"1.0\"} 3"),
        ("h_bucket{le=\"+Inf\"} 2\n", ""),
        ("1.0", "x"),
    ] {
        assert!(Scrape::read(&histogram.replace(from, to)).is_err(), "{from} → {to}");
    }
}
