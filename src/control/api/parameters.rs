//! What a request says: parameters of a query or members of a JSON object, checked against what its route takes.

use std::net::IpAddr;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::Value;

use super::reply::Refusal;
use super::routes::{Form, NAMES_MAX, Parameter, Route};
use crate::wire::Rcode;

/// Longest text that is taken, in characters.
pub(super) const TEXT_CHARS_MAX: usize = 255;

/// Longest length of time that is taken.
const SPAN_SECONDS_MAX: u64 = 10 * 365 * 86_400;

/// Parameters of a request, each once and of the form that its route asks for.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<(&'static str, Value)>);

impl Parameters {
    /// Those of the query string of a request to `route`.
    ///
    /// # Errors
    /// The refusal, with the parameter at fault.
    pub(super) fn of_query(query: &str, route: &Route) -> Result<Self, Refusal> {
        let mut read = Self::default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, text) = part.split_once('=').unwrap_or((part, ""));
            let (name, text) = (decode(name)?, decode(text)?);
            let parameter = find(route, &name)?;
            let value = match parameter.form {
                Form::Name
                | Form::Type
                | Form::Rcode
                | Form::Choice(_)
                | Form::Text
                | Form::Address
                | Form::Span => Some(Value::from(text)),
                Form::Count(..) => text.parse::<u64>().ok().map(Value::from),
                Form::Switch | Form::Mark => text.parse::<bool>().ok().map(Value::from),
                Form::Names => None,
            };
            read.put(parameter, value.unwrap_or(Value::Null))?;
        }
        read.all_there(route)
    }

    /// Those of the JSON body of a request to `route`.
    ///
    /// # Errors
    /// As of [`Parameters::of_query`].
    pub(super) fn of_json(body: &[u8], route: &Route) -> Result<Self, Refusal> {
        let mut read = Self::default();
        // Space as JSON has it, which is less than ASCII's (RFC 8259 §2).
        if !body.iter().all(|octet| b" \t\n\r".contains(octet)) {
            let bad = |error| Refusal::bad(format!("the body is no JSON: {error}"));
            let Value::Object(members) = serde_json::from_slice(body).map_err(bad)? else {
                return Err(Refusal::bad("the body must be a JSON object"));
            };
            for (name, value) in members {
                read.put(find(route, &name)?, value)?;
            }
        }
        read.all_there(route)
    }

    fn put(&mut self, parameter: &'static Parameter, value: Value) -> Result<(), Refusal> {
        let is_taken = match (&parameter.form, &value) {
            (Form::Name | Form::Type, Value::String(_))
            | (Form::Switch, Value::Bool(_))
            | (Form::Mark, Value::Bool(true)) => true,
            (Form::Names, Value::Array(names)) => {
                (1..=NAMES_MAX).contains(&names.len()) && names.iter().all(Value::is_string)
            }
            (Form::Rcode, Value::String(text)) => Rcode::from_text(text).is_some(),
            (Form::Text, Value::String(text)) => {
                (1..=TEXT_CHARS_MAX).contains(&text.chars().count())
            }
            (Form::Address, Value::String(text)) => text.parse::<IpAddr>().is_ok(),
            (Form::Span, Value::String(text)) => span(text).is_some(),
            (Form::Choice(choices), Value::String(text)) => choices.contains(&text.as_str()),
            (Form::Count(least, most), Value::Number(number)) => {
                number.as_u64().is_some_and(|number| (*least..=*most).contains(&number))
            }
            _ => false,
        };
        if !is_taken {
            let expected = parameter.form.expected();
            return Err(Refusal::bad(format!("{}: expected {expected}", parameter.name)));
        }
        if self.value(parameter.name).is_some() {
            return Err(Refusal::bad(format!("{} stands twice", parameter.name)));
        }
        self.0.push((parameter.name, value));
        Ok(())
    }

    fn all_there(self, route: &Route) -> Result<Self, Refusal> {
        let mut needed = route.parameters.iter().filter(|parameter| parameter.is_required);
        match needed.find(|parameter| self.value(parameter.name).is_none()) {
            Some(missing) => {
                let expected = missing.form.expected();
                Err(Refusal::bad(format!("{} is missing: expected {expected}", missing.name)))
            }
            None if self.go_together(route) => Ok(self),
            None => {
                let told = |names: &&[&str]| match names {
                    [first, others @ ..] if !others.is_empty() => {
                        format!("{first} (with {} if you like)", others.join(" and "))
                    }
                    names => names.concat(),
                };
                let choices: Vec<String> = route.choices.iter().map(told).collect();
                Err(Refusal::bad(format!("say one of these: {}", choices.join(", or "))))
            }
        }
    }

    /// Whether the route takes these parameters in one request.
    fn go_together(&self, route: &Route) -> bool {
        let is_it = |names: &&[&str]| {
            names.first().is_some_and(|first| self.value(first).is_some())
                && self.0.iter().all(|(given, _)| names.contains(given))
        };
        route.choices.is_empty() || route.choices.iter().any(is_it)
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// A text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.value(name)?.as_str()
    }

    /// The texts of an array; none when it is not there.
    pub(super) fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        let texts = self.value(name).and_then(Value::as_array);
        texts.into_iter().flatten().filter_map(Value::as_str)
    }

    /// A count.
    pub(super) fn count(&self, name: &str) -> Option<u64> {
        self.value(name)?.as_u64()
    }

    /// A switch; off when it is not there.
    pub(super) fn is_on(&self, name: &str) -> bool {
        self.value(name).and_then(Value::as_bool).unwrap_or(false)
    }
}

/// A length of time: a number with `s`, `m`, `h` or `d`, from a second to ten years.
pub(super) fn span(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let scale = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let is_number = number.bytes().all(|digit| digit.is_ascii_digit());
    let seconds = number.parse::<u64>().ok().filter(|_| is_number)?.checked_mul(scale)?;
    (1..=SPAN_SECONDS_MAX).contains(&seconds).then(|| Duration::from_secs(seconds))
}

fn find(route: &Route, name: &str) -> Result<&'static Parameter, Refusal> {
    route.parameters.iter().find(|parameter| parameter.name == name).ok_or_else(|| {
        let known: Vec<&str> = route.parameters.iter().map(|parameter| parameter.name).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let name: String = name.chars().take(80).collect();
        Refusal::bad(format!("unknown parameter {name:?}; known: {known}"))
    })
}

/// Takes the percent encoding away (RFC 3986 §2.1).
fn decode(text: &str) -> Result<String, Refusal> {
    let bad = || Refusal::new(StatusCode::BAD_REQUEST, "the query is not well encoded");
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit().ok_or_else(bad)?, digit().ok_or_else(bad)?);
                u8::try_from(16 * high + low).map_err(|_| bad())?
            }
            other => other,
        });
    }
    String::from_utf8(octets).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::super::routes::{Action, ROUTES};
    use super::*;

    fn route(action: Action) -> &'static Route {
        ROUTES.iter().find(|route| route.action == action).unwrap()
    }

    #[test]
    fn query_is_decoded_and_checked() {
        let lookup = route(Action::Lookup);
        let read = Parameters::of_query("name=a%2Eb&type=TXT", lookup).unwrap();
        assert_eq!((read.text("name"), read.text("type")), (Some("a.b"), Some("TXT")));
        for bad in [
            "",
            "type=A",
            "name=a&name=b",
            "name=a&other=1",
            "name=%",
            "name=%2",
            "name=%zz",
            "name=%ff",
            "name=%+1",
        ] {
            assert!(Parameters::of_query(bad, lookup).is_err(), "{bad}");
        }
        let dump = route(Action::Dump);
        assert_eq!(Parameters::of_query("limit=7", dump).unwrap().count("limit"), Some(7));
        for bad in ["limit=0", "limit=-1", "limit=x", "limit=99999999999999999999"] {
            assert!(Parameters::of_query(bad, dump).is_err(), "{bad}");
        }
    }

    #[test]
    fn length_of_time_has_a_unit_and_an_end() {
        let seconds = |text| span(text).map(|span| span.as_secs());
        assert_eq!(
            ["1s", "10m", "2h", "30d", "3650d"].map(seconds),
            [Some(1), Some(600), Some(7_200), Some(2_592_000), Some(315_360_000)]
        );
        for bad in [
            "",
            "s",
            "0s",
            "1",
            "1 m",
            "+1m",
            "-1m",
            "1ms",
            "3651d",
            "99999999999999999999h",
            "1\u{b5}",
        ] {
            assert_eq!(span(bad), None, "{bad}");
        }
    }

    #[test]
    fn so_many_names_are_taken_at_a_time_as_a_body_holds() {
        let removal = route(Action::RemoveOverride);
        let read = |count: usize| {
            let names = vec!["www.example.com"; count];
            Parameters::of_json(
                serde_json::json!({ "names": names }).to_string().as_bytes(),
                removal,
            )
        };
        assert_eq!(read(NAMES_MAX).unwrap().texts("names").count(), NAMES_MAX);
        let refusal = format!("{:?}", read(NAMES_MAX + 1).unwrap_err());
        assert!(
            refusal.contains("names: expected an array of 1 to 1000 domain names"),
            "{refusal}"
        );
    }

    #[test]
    fn body_is_an_object_of_what_the_route_takes() {
        let flush = route(Action::Flush);
        let read = Parameters::of_json(b" {\"name\": \"a\", \"subtree\": true} ", flush).unwrap();
        assert!(read.is_on("subtree") && !read.is_on("all"));
        let refusal = Parameters::of_json(b"", flush).unwrap_err();
        let words = "say one of these: name (with subtree and type if you like), or type, or all";
        assert!(format!("{refusal:?}").contains(words), "{refusal:?}");
        let level = route(Action::Snapshot);
        assert!(Parameters::of_json(b"", level).is_ok());
        assert!(Parameters::of_json(b" \t\r\n", level).is_ok());
        assert!(Parameters::of_json(b"\x0c", level).is_err());
        for bad in [
            "[]",
            "1",
            "{",
            "{\"name\": 1}",
            "{\"subtree\": \"true\"}",
            "{\"x\": 1}",
            "\u{1}",
            "{\"name\":null}",
        ] {
            assert!(Parameters::of_json(bad.as_bytes(), flush).is_err(), "{bad}");
        }
        let deep = "[".repeat(60_000);
        assert!(Parameters::of_json(deep.as_bytes(), flush).is_err(), "no stack is that deep");
    }
}
