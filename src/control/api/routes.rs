//! All that can be asked, in one table: requests are matched with it, and the OpenAPI document is written from it.

use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Method, StatusCode};

use super::guard::Access;
use super::reply::Refusal;

/// What is done for a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Action {
    Metrics,
    OpenApi,
    Status,
    Config,
    Stats,
    Live,
    Upstreams,
    Lookup,
    Dump,
    Flush,
    Snapshot,
    Reload,
    LogLevel,
    SetLogLevel,
}

/// What may be done with a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verb {
    /// Look.
    Get,
    /// Command.
    Post,
}

impl Verb {
    /// The method of HTTP.
    pub(super) const fn method(self) -> &'static Method {
        match self {
            Self::Get => &Method::GET,
            Self::Post => &Method::POST,
        }
    }
}

/// One method of one path.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) verb: Verb,
    pub(super) path: &'static str,
    pub(super) action: Action,
    pub(super) access: Access,
    pub(super) summary: &'static str,
    /// Of the query; of the JSON body, where the method is POST.
    pub(super) parameters: &'static [Parameter],
    /// Which of them go together, where not all do; the first of each must be there.
    pub(super) choices: &'static [&'static [&'static str]],
    pub(super) answer: Answer,
}

/// One parameter of a route.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) form: Form,
    pub(super) is_required: bool,
    pub(super) text: &'static str,
}

/// What a parameter takes.
#[derive(Debug)]
pub(super) enum Form {
    /// A domain name.
    Name,
    /// A record type.
    Type,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A number from the first to the second.
    Count(u64, u64),
    /// True or false.
    Switch,
    /// True, or not there.
    Mark,
}

impl Form {
    /// What it takes, in words.
    pub(super) fn expected(&self) -> String {
        match self {
            Self::Name => "a domain name".to_owned(),
            Self::Type => "a record type such as A or TYPE65280".to_owned(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Count(least, most) => format!("a number from {least} to {most}"),
            Self::Switch => "true or false".to_owned(),
            Self::Mark => "true".to_owned(),
        }
    }
}

/// What comes back when all is well.
#[derive(Debug)]
pub(super) enum Answer {
    /// A JSON object with these members, each with its JSON type.
    Json(&'static [(&'static str, &'static str)]),
    /// A text of one of these media types.
    Text(&'static [&'static str]),
}

/// JSON objects, one in a line.
pub(super) const LINES: &str = "application/x-ndjson";

/// Server-sent events.
pub(super) const EVENTS: &str = "text/event-stream";

/// Entries that one dump may have, and has when nothing else is said.
pub(super) const DUMP_MAX: u64 = 10_000_000;
pub(super) const DUMP_DEFAULT: u64 = 10_000;

/// How much may be logged.
const LEVELS: &[&str] = &["error", "warn", "info", "debug"];

const NAME: Parameter =
    Parameter { name: "name", form: Form::Name, is_required: true, text: "the owner name" };

const fn figures(
    path: &'static str,
    action: Action,
    summary: &'static str,
    answer: Answer,
) -> Route {
    Route {
        verb: Verb::Get,
        path,
        action,
        access: Access::Figures,
        summary,
        parameters: &[],
        choices: &[],
        answer,
    }
}

/// Everything that can be asked.
pub(super) static ROUTES: [Route; 14] = [
    figures(
        "/metrics",
        Action::Metrics,
        "All counters, as OpenMetrics or in Prometheus' own text format, by the Accept header",
        Answer::Text(&[
            "text/plain; version=0.0.4; charset=utf-8",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ]),
    ),
    figures(
        "/api/v1/openapi.json",
        Action::OpenApi,
        "This document",
        Answer::Json(&[
            ("openapi", "string"),
            ("info", "object"),
            ("paths", "object"),
            ("components", "object"),
        ]),
    ),
    figures(
        "/api/v1/status",
        Action::Status,
        "What runs: version, cores, memory, ways of I/O, what is switched on",
        Answer::Json(&[
            ("version", "string"),
            ("uptime_seconds", "integer"),
            ("listen", "array"),
            ("cores", "array"),
            ("memory", "string"),
            ("io", "string"),
            ("fallbacks", "array"),
            ("steering", "object"),
            ("optimizations", "object"),
            ("log_level", "string"),
        ]),
    ),
    figures(
        "/api/v1/stats",
        Action::Stats,
        "Figures of the last seconds and since the start, of all cores and of each",
        Answer::Json(&[
            ("recent", "object"),
            ("total", "object"),
            ("responses", "object"),
            ("cores", "array"),
        ]),
    ),
    figures(
        "/api/v1/live",
        Action::Live,
        "The figures of each second as a server-sent event, until the client leaves",
        Answer::Text(&[EVENTS]),
    ),
    Route {
        access: Access::Control,
        ..figures(
            "/api/v1/config",
            Action::Config,
            "The config in force, section by section, without secrets",
            Answer::Json(&[("config", "object")]),
        )
    },
    figures(
        "/api/v1/upstreams",
        Action::Upstreams,
        "What each core knows of each upstream",
        Answer::Json(&[("upstreams", "array")]),
    ),
    Route {
        access: Access::Control,
        parameters: &[
            NAME,
            Parameter {
                name: "type",
                form: Form::Type,
                is_required: false,
                text: "the record type; A if none is given",
            },
        ],
        ..figures(
            "/api/v1/cache/lookup",
            Action::Lookup,
            "What each core's cache would answer, and why",
            Answer::Json(&[("name", "string"), ("type", "string"), ("cores", "array")]),
        )
    },
    Route {
        access: Access::Control,
        parameters: &[
            Parameter {
                name: "under",
                form: Form::Name,
                is_required: false,
                text: "only this name and those below it",
            },
            Parameter {
                name: "limit",
                form: Form::Count(1, DUMP_MAX),
                is_required: false,
                text: "entries at most; 10000 if nothing is said",
            },
        ],
        ..figures(
            "/api/v1/cache/dump",
            Action::Dump,
            "The entries of all caches, one JSON object in a line, core by core",
            Answer::Text(&[LINES]),
        )
    },
    Route {
        verb: Verb::Post,
        access: Access::Control,
        parameters: &[
            Parameter { is_required: false, ..NAME },
            Parameter {
                name: "subtree",
                form: Form::Switch,
                is_required: false,
                text: "and all names below it",
            },
            Parameter {
                name: "type",
                form: Form::Type,
                is_required: false,
                text: "only answers of this type, and denials",
            },
            Parameter {
                name: "all",
                form: Form::Mark,
                is_required: false,
                text: "everything; without any other",
            },
        ],
        choices: &[&["name", "subtree", "type"], &["type"], &["all"]],
        ..figures(
            "/api/v1/cache/flush",
            Action::Flush,
            "Forgets answers, on all cores",
            Answer::Json(&[("flushed", "string")]),
        )
    },
    Route {
        verb: Verb::Post,
        access: Access::Control,
        ..figures(
            "/api/v1/snapshot",
            Action::Snapshot,
            "Has the cache written to its snapshot file, within seconds",
            Answer::Json(&[("asked", "boolean")]),
        )
    },
    Route {
        verb: Verb::Post,
        access: Access::Control,
        ..figures(
            "/api/v1/reload",
            Action::Reload,
            "Reads the config anew, puts in force what differs and can change, and tells what that was",
            Answer::Json(&[
                ("applied", "array"),
                ("unchanged", "array"),
                ("needs_restart", "array"),
                ("warnings", "array"),
            ]),
        )
    },
    figures(
        "/api/v1/log-level",
        Action::LogLevel,
        "How much is logged",
        Answer::Json(&[("level", "string")]),
    ),
    Route {
        verb: Verb::Post,
        access: Access::Control,
        parameters: &[Parameter {
            name: "level",
            form: Form::Choice(LEVELS),
            is_required: true,
            text: "the least important level",
        }],
        ..figures(
            "/api/v1/log-level",
            Action::SetLogLevel,
            "Changes how much is logged, until the node ends",
            Answer::Json(&[("level", "string")]),
        )
    },
];

/// Refuses a body that is not said to be JSON. No page of another site may send that without being asked first.
pub(super) fn ensure_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let media = headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        let text = "expected Content-Type: application/json";
        Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
    }
}
