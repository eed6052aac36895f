//! All that can be asked, in one table: requests are matched with it, and the OpenAPI document is written from it.

use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Method, StatusCode};

use super::guard::Access;
use super::parameters::TEXT_CHARS_MAX;
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
    History,
    Upstreams,
    Explain,
    Decisions,
    Lists,
    EnableList,
    DisableList,
    RefreshLists,
    AddOverride,
    RemoveOverride,
    Pause,
    Resume,
    Queries,
    Top,
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

    /// All that are taken for it, as Allow has them.
    pub(super) const fn methods(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
            Self::Post => "POST",
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
    /// The config may not provide for it, though it is only a look.
    pub(super) may_conflict: bool,
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
    /// An array of them.
    Names,
    /// A record type.
    Type,
    /// A response code.
    Rcode,
    /// Any text that is not empty.
    Text,
    /// An IP address.
    Address,
    /// A length of time.
    Span,
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
            Self::Names => format!("an array of 1 to {NAMES_MAX} domain names"),
            Self::Type => "a record type such as A or TYPE65280".to_owned(),
            Self::Rcode => "an RCODE such as NXDOMAIN or RCODE11".to_owned(),
            Self::Text => format!("a text of 1 to {TEXT_CHARS_MAX} characters"),
            Self::Address => "an IP address".to_owned(),
            Self::Span => "a length of time such as 30s, 10m, 2h or 7d".to_owned(),
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

/// Decisions that one request may give, and gives when nothing else is said.
pub(super) const DECISIONS_MAX: u64 = 1_000;
pub(super) const DECISIONS_DEFAULT: u64 = 50;

/// Names that one request may hold: so many of a common length fit into a body.
pub const NAMES_MAX: usize = 1_000;

/// Queries that one search may give, and gives when nothing else is said.
pub(super) const QUERIES_MAX: u64 = 1_000;
pub(super) const QUERIES_DEFAULT: u64 = 100;

/// How many of what is seen most may be told, and are when nothing else is said.
pub(super) const TOP_MAX: u64 = 1_000;
pub(super) const TOP_DEFAULT: u64 = 10;

/// Numbers of queries, and seconds since the epoch, go up to here: a number of JSON is exact that far.
const NUMBER_MAX: u64 = 1 << 53;

/// Where answers come from.
const ANSWERS: &[&str] = &["cache", "stale", "local", "blocked", "forwarded", "refused", "dropped"];

/// How much may be logged.
const LEVELS: &[&str] = &["error", "warn", "info", "debug"];

const NAME: Parameter =
    Parameter { name: "name", form: Form::Name, is_required: true, text: "the owner name" };

const ONE_NAME: Parameter = Parameter { is_required: false, ..NAME };

const NAMES: Parameter = optional("names", Form::Names, "several names at a time");

const LIST: Parameter =
    Parameter { name: "list", form: Form::Text, is_required: true, text: "the name of the list" };

const FOR: Parameter = optional("for", Form::Span, "how long; until told otherwise if not said");

const fn optional(name: &'static str, form: Form, text: &'static str) -> Parameter {
    Parameter { name, form, is_required: false, text }
}

/// A command that answers with a JSON object.
const fn command(
    path: &'static str,
    action: Action,
    summary: &'static str,
    parameters: &'static [Parameter],
    answer: &'static [(&'static str, &'static str)],
) -> Route {
    Route {
        verb: Verb::Post,
        path,
        action,
        access: Access::Control,
        summary,
        parameters,
        choices: &[],
        may_conflict: true,
        answer: Answer::Json(answer),
    }
}

/// `route` with parameters of which not all go together.
const fn choosing(choices: &'static [&'static [&'static str]], route: Route) -> Route {
    Route { choices, ..route }
}

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
        may_conflict: false,
        answer,
    }
}

/// Seconds since the epoch.
const SECONDS: Form = Form::Count(0, NUMBER_MAX / 1_000);

/// What a list is after it was switched.
const SWITCHED_LIST: &[(&str, &str)] = &[
    ("list", "string"),
    ("enabled", "boolean"),
    ("enabled_again_at", "integer?"),
    ("kept", "boolean"),
    ("late", "integer"),
];

/// What blocking is after it was paused or resumed.
const PAUSED: &[(&str, &str)] = &[
    ("paused", "boolean"),
    ("paused_until", "integer?"),
    ("kept", "boolean"),
    ("late", "integer"),
];

/// Everything that can be asked.
pub(super) static ROUTES: [Route; 27] = [
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
            ("cache_bytes_max", "integer"),
            ("io", "string"),
            ("fallbacks", "array"),
            ("steering", "object"),
            ("optimizations", "object"),
            ("log_level", "string"),
            ("blocking", "object"),
            ("upstreams", "object?"),
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
        "The figures of each second as a server-sent event, until the client leaves; with what is seen most for those who may \
         see that",
        Answer::Text(&[EVENTS]),
    ),
    figures(
        "/api/v1/history",
        Action::History,
        "The figures of each of the last seconds, five minutes at most, the latest last",
        Answer::Json(&[("seconds", "array")]),
    ),
    Route {
        access: Access::Control,
        ..figures(
            "/api/v1/config",
            Action::Config,
            "The config in force, section by section in words, and as a file that would be read again; without secrets",
            Answer::Json(&[("config", "object"), ("toml", "string")]),
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
        ..figures(
            "/api/v1/lists",
            Action::Lists,
            "All lists, names that are overridden, and whether blocking is paused",
            Answer::Json(&[
                ("lists", "array"),
                ("paused", "boolean"),
                ("paused_until", "integer?"),
                ("overrides", "array"),
                ("override_hits", "integer"),
                ("kept", "boolean"),
            ]),
        )
    },
    command(
        "/api/v1/lists/enable",
        Action::EnableList,
        "Has a list count again",
        &[LIST],
        SWITCHED_LIST,
    ),
    command(
        "/api/v1/lists/disable",
        Action::DisableList,
        "Has a list count for nobody, for a time or until told otherwise",
        &[LIST, FOR],
        SWITCHED_LIST,
    ),
    command(
        "/api/v1/lists/refresh",
        Action::RefreshLists,
        "Has the source of a list, or of all, looked at now",
        &[optional("list", Form::Text, "the name of the list; all if not said")],
        &[("asked", "boolean")],
    ),
    choosing(
        &[&["name", "action", "subtree", "for"], &["names", "action", "subtree", "for"]],
        command(
            "/api/v1/overrides/add",
            Action::AddOverride,
            "Blocks or allows names, whatever lists say; local is those of them that local data answers before",
            &[
                ONE_NAME,
                NAMES,
                Parameter {
                    name: "action",
                    form: Form::Choice(&["block", "allow"]),
                    is_required: true,
                    text: "what becomes of questions for it",
                },
                optional("subtree", Form::Switch, "and for all names below it"),
                FOR,
            ],
            &[
                ("name", "string?"),
                ("names", "array"),
                ("action", "string"),
                ("subtree", "boolean"),
                ("expires_at", "integer?"),
                ("local", "array"),
                ("kept", "boolean"),
                ("late", "integer"),
            ],
        ),
    ),
    choosing(
        &[&["name"], &["names"]],
        command(
            "/api/v1/overrides/remove",
            Action::RemoveOverride,
            "Takes back what was said of names: lists decide again; removed says whether anything was, missing of which names \
             nothing was",
            &[ONE_NAME, NAMES],
            &[
                ("name", "string?"),
                ("names", "array"),
                ("removed", "boolean"),
                ("missing", "array"),
                ("kept", "boolean"),
                ("late", "integer"),
            ],
        ),
    ),
    command(
        "/api/v1/blocking/pause",
        Action::Pause,
        "Has nothing blocked, for a time or until told otherwise: neither lists nor overrides are asked",
        &[FOR],
        PAUSED,
    ),
    command(
        "/api/v1/blocking/resume",
        Action::Resume,
        "Has lists and overrides asked again",
        &[],
        PAUSED,
    ),
    Route {
        access: Access::Control,
        may_conflict: true,
        parameters: &[
            optional(
                "name",
                Form::Text,
                "a part of the name; with under, pages may be shorter than limit",
            ),
            optional("under", Form::Name, "this name and those below it"),
            optional(
                "client",
                Form::Address,
                "the client's address; its network's where clients are anonymous",
            ),
            optional("group", Form::Text, "the client's group"),
            optional("answer", Form::Choice(ANSWERS), "where the answer came from"),
            optional("list", Form::Text, "the list that decided"),
            optional("type", Form::Type, "the record type asked for"),
            optional("rcode", Form::Rcode, "the RCODE of the reply"),
            optional("since", SECONDS, "not before this, in seconds since the epoch"),
            optional("until", SECONDS, "before this, in seconds since the epoch"),
            optional(
                "before",
                Form::Count(0, NUMBER_MAX),
                "before the query with this id: the next page",
            ),
            optional(
                "limit",
                Form::Count(1, QUERIES_MAX),
                "queries at most; 100 if nothing is said",
            ),
        ],
        ..figures(
            "/api/v1/queries",
            Action::Queries,
            "Queries that were stored, newest first; what is found within five seconds, where next goes on; how many broken \
             blocks were passed over; what no group and no list of the config in force is called",
            Answer::Json(&[
                ("queries", "array"),
                ("next", "integer?"),
                ("whole", "boolean"),
                ("broken", "integer"),
                ("unknown", "array"),
            ]),
        )
    },
    Route {
        access: Access::Control,
        may_conflict: true,
        parameters: &[
            optional(
                "of",
                Form::Choice(&["names", "clients", "blocked"]),
                "of what; names if nothing is said",
            ),
            optional("limit", Form::Count(1, TOP_MAX), "how many at most; 10 if nothing is said"),
        ],
        ..figures(
            "/api/v1/top",
            Action::Top,
            "What is seen most of late, and by how much each count may be too high",
            Answer::Json(&[("of", "string"), ("top", "array")]),
        )
    },
    Route {
        access: Access::Control,
        parameters: &[
            NAME,
            optional("type", Form::Type, "the record type; A if none is given"),
            optional("client", Form::Address, "who would ask; 127.0.0.1 if nothing is said"),
            optional(
                "transport",
                Form::Choice(&["udp", "tcp"]),
                "how it would ask; udp if nothing is said",
            ),
            optional(
                "listener",
                Form::Text,
                "which listener it would ask, as node.listen has it; the first if nothing is said",
            ),
        ],
        ..figures(
            "/api/v1/explain",
            Action::Explain,
            "What would become of a question, step by step, on each core, and the last decisions about the name; where each name has \
             its core, which one that is, or that the name is spread over all",
            Answer::Json(&[
                ("name", "string"),
                ("type", "string"),
                ("client", "string"),
                ("transport", "string"),
                ("listener", "string"),
                ("owner", "integer?"),
                ("spread", "boolean"),
                ("cores", "array"),
                ("decisions", "array"),
            ]),
        )
    },
    Route {
        access: Access::Control,
        parameters: &[
            Parameter { is_required: false, text: "about this name", ..NAME },
            optional("under", Form::Name, "about this name and those below it"),
            optional("client", Form::Address, "of this client"),
            optional(
                "limit",
                Form::Count(1, DECISIONS_MAX),
                "decisions at most; 50 if nothing is said",
            ),
        ],
        ..figures(
            "/api/v1/decisions",
            Action::Decisions,
            "The last decisions of all cores, newest first: plain hits by samples, everything else",
            Answer::Json(&[("decisions", "array")]),
        )
    },
    Route {
        access: Access::Control,
        parameters: &[NAME, optional("type", Form::Type, "the record type; A if none is given")],
        ..figures(
            "/api/v1/cache/lookup",
            Action::Lookup,
            "What each core's cache holds for each view, whatever local data, lists and overrides say before it is asked",
            Answer::Json(&[
                ("name", "string"),
                ("type", "string"),
                ("owner", "integer?"),
                ("spread", "boolean"),
                ("cores", "array"),
            ]),
        )
    },
    Route {
        access: Access::Control,
        parameters: &[
            optional("under", Form::Name, "only this name and those below it"),
            optional(
                "limit",
                Form::Count(1, DUMP_MAX),
                "entries at most; 10000 if nothing is said",
            ),
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
            optional("subtree", Form::Switch, "and all names below it"),
            optional("type", Form::Type, "only answers of this type, and denials"),
            optional("all", Form::Mark, "everything; without any other"),
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
