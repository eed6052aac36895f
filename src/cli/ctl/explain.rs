//! Why a question gets the answer that it gets, for people: what all cores have in common once, the rest core by core.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::show::{NOTHING, list, owner, text};
use super::table::{Side, Table, seconds};

/// What is said of one stage: by which cores, and what.
struct Said {
    stage: String,
    /// Which of the steps of that stage it is: a detour has several.
    number: usize,
    words: Vec<(String, Vec<String>)>,
}

/// What would become of a question.
pub(super) fn explain(told: &Value) -> String {
    let [name, rtype, client, transport, listener] =
        ["name", "type", "client", "transport", "listener"].map(|key| text(&told[key]));
    let mut out = format!("{name} {rtype} from {client} over {transport} at {listener}\n\n");
    if let Some(owner) = owner(told) {
        out += &format!("{:<11}{owner}\n", "owner");
    }
    let cores: Vec<&Value> = list(&told["cores"]).collect();
    let mut stages = merged(&cores);
    let mut verdict = Said { stage: "verdict".to_owned(), number: 0, words: Vec::new() };
    for core in &cores {
        verdict.add(text(&core["core"]), text(&core["verdict"]));
    }
    stages.push(verdict);
    for said in &stages {
        out += &said.shown(cores.len());
    }
    if list(&told["decisions"]).next().is_some() {
        out += "\nLast decisions about the name\n";
        out += &decisions(told);
    }
    out
}

/// What was decided last.
pub(super) fn decisions(told: &Value) -> String {
    let mut table = Table::new(&[
        ("time", Side::Left),
        ("core", Side::Right),
        ("client", Side::Left),
        ("group", Side::Left),
        ("name", Side::Left),
        ("type", Side::Left),
        ("answer", Side::Left),
        ("RCODE", Side::Left),
        ("list", Side::Left),
        ("upstream", Side::Left),
        ("took", Side::Right),
        ("why", Side::Left),
    ]);
    for decision in list(&told["decisions"]) {
        let took = decision["latency_us"].as_f64().map(|us| seconds(us / 1e6));
        let cell = |key: &str| text(&decision[key]);
        table.row(vec![
            time(&decision["time_ms"]),
            cell("core"),
            cell("client"),
            cell("group"),
            cell("name"),
            cell("type"),
            cell("answer"),
            cell("rcode"),
            cell("list"),
            cell("upstream"),
            took.unwrap_or_else(|| NOTHING.to_owned()),
            cell("reason"),
        ]);
    }
    table.to_string()
}

/// The steps of all cores in one order: that of each core is kept.
fn merged(cores: &[&Value]) -> Vec<Said> {
    let mut stages: Vec<Said> = Vec::new();
    for core in cores {
        let mut at = 0;
        let mut seen: Vec<String> = Vec::new();
        for step in list(&core["steps"]) {
            let stage = text(&step["stage"]);
            let number = seen.iter().filter(|known| **known == stage).count();
            seen.push(stage.clone());
            let is_it = |said: &Said| said.stage == stage && said.number == number;
            let place = stages.iter().position(is_it).unwrap_or_else(|| {
                stages.insert(at, Said { stage, number, words: Vec::new() });
                at
            });
            stages[place].add(text(&core["core"]), text(&step["text"]));
            at = place + 1;
        }
    }
    stages
}

impl Said {
    fn add(&mut self, core: String, words: String) {
        match self.words.iter_mut().find(|(known, _)| *known == words) {
            Some((_, cores)) => cores.push(core),
            None => self.words.push((words, vec![core])),
        }
    }

    /// A line, or one for each group of cores that say the same where not all of `count` do.
    fn shown(&self, count: usize) -> String {
        let line = |(number, (words, cores)): (usize, &(String, Vec<String>))| {
            let head = if number == 0 { self.stage.as_str() } else { "" };
            let who = match cores.len() {
                all if all == count => String::new(),
                1 => format!("core {}: ", cores[0]),
                _ => format!("cores {}: ", cores.join(", ")),
            };
            format!("{head:<11}{who}{words}\n")
        };
        self.words.iter().enumerate().map(line).collect()
    }
}

/// The time of day, and the day where it is another one.
fn time(millis: &Value) -> String {
    let millis = millis.as_i64().and_then(|millis| Timestamp::from_millisecond(millis).ok());
    let Some(timestamp) = millis else { return NOTHING.to_owned() };
    timestamp.to_zoned(TimeZone::system()).strftime("%F %H:%M:%S%.3f").to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_is_said_nothing_breaks() {
        for told in [
            Value::Null,
            json!({ "cores": [null, 1, { "steps": [null, {}] }], "decisions": [null, { "time_ms": -1 }] }),
        ] {
            explain(&told);
            decisions(&told);
        }
    }

    #[test]
    fn what_all_cores_say_stands_once_and_the_rest_core_by_core() {
        let step = |stage: &str, words: &str| json!({ "stage": stage, "text": words });
        let core = |number: usize, steps: &[Value], verdict: &str| json!({ "core": number, "steps": steps, "verdict": verdict });
        let told = json!({ "name": "a.", "type": "A", "client": "::1", "transport": "udp", "listener": "[::1]:53", "cores": [
            core(0, &[step("access", "served"), step("cache", "holds it")], "answered"),
            core(1, &[step("access", "served"), step("cache", "nothing"), step("in flight", "no")], "asked"),
            core(2, &[step("access", "served"), step("cache", "nothing"), step("in flight", "no")], "asked"),
        ] });
        let expected = "a. A from ::1 over udp at [::1]:53\n\n\
            access     served\n\
            cache      core 0: holds it\n           cores 1, 2: nothing\n\
            in flight  cores 1, 2: no\n\
            verdict    core 0: answered\n           cores 1, 2: asked\n";
        assert_eq!(explain(&told), expected);
        let owned = |owner: Value, spread: bool| {
            let mut told = told.clone();
            (told["owner"], told["spread"]) = (owner, spread.into());
            explain(&told)
        };
        assert!(owned(json!(1), false).contains("\n\nowner      core 1: datagrams"), "{told}");
        assert!(owned(Value::Null, true).contains("\n\nowner      all cores: "), "{told}");
        assert_eq!(owned(Value::Null, false), expected);
    }
}
