//! `[[list]]` tables.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::places::Places;
use super::{Source, misshapen, plain, shortened, unknown};
use crate::config::{
    Config, ConfigError, LISTS_MAX, List, ListKind, ListReason, ListSource, ListSyntax,
    OVERRIDES_NAME, Value, list,
};

/// Keys of a `[[list]]` table.
const KEYS: [&str; 9] =
    ["name", "file", "url", "kind", "syntax", "answer", "ttl", "reason", "refresh"];

/// What they take.
const NAME: &str = "a name of 1 to 64 printable characters such as \"ads\", which no other list has, and not \"overrides\"";
const FILE: &str =
    "the absolute path of a file such as \"/etc/heimdall-uring/ads.txt\", plain or packed by gzip";
const URL: &str = "an http or https URL such as \"https://lists.example/ads.txt\"";
const KIND: &str = "\"block\" or \"allow\"";
const SYNTAX: &str = "\"auto\", \"hosts\", \"domains\", \"adblock\", \"dnsmasq\" or \"rpz\"";
const ANSWER: &str = "\"nxdomain\", \"nodata\", \"zero_ip\", \"refused\", addresses such as \
    \"ip:192.0.2.1,2001:db8::1\", or another name such as \"cname:blocked.example\"";
const TTL: &str = "a number of seconds from 0 to 86400";
const REASON: &str = "\"blocked\" or \"filtered\"";
const REFRESH: &str = "a duration from 1m to 8760h such as \"24h\", or \"0s\"";

impl Config {
    /// Reads the `[[list]]` tables.
    pub(super) fn read_lists(
        &mut self,
        file: &Source<'_>,
        tables: &[Spanned<DeValue<'_>>],
    ) -> Result<(), ConfigError> {
        for table in tables {
            let place = file.place(table.span().start);
            let DeValue::Table(keys) = table.get_ref() else {
                return Err(misshapen(&place, "list"));
            };
            let list = read_list(file, keys, place)?;
            if let Some(known) = self.lists.iter().find(|known| known.name == list.name) {
                return Err(conflict(
                    &list.place,
                    format!(
                        "list.name = {:?} stands twice: the first is at {}",
                        list.name, known.place
                    ),
                ));
            }
            if self.lists.len() >= LISTS_MAX {
                let problem = format!("more than {LISTS_MAX} [[list]] tables");
                return Err(conflict(&list.place, problem));
            }
            self.lists.push(list);
        }
        Ok(())
    }

    /// Whether what is said of lists goes together.
    pub(super) fn check_lists(&self, places: &Places) -> Result<(), ConfigError> {
        let Self { filter, lists, .. } = self;
        if !lists.is_empty() && filter.list_bytes_max > filter.bytes / list::TEXTS {
            let place = places.before(&["filter.list_bytes_max", "filter.memory"]);
            return Err(ConfigError::Conflict(format!(
                "{place}filter.list_bytes_max = {} is more than a quarter of filter.memory = {} bytes: a list that long could \
                 not be read beside its rules",
                filter.list_bytes_max, filter.bytes
            )));
        }
        Ok(())
    }
}

fn conflict(place: &str, problem: String) -> ConfigError {
    ConfigError::Conflict(format!("{place}: {problem}"))
}

/// A list that is still to be given its name and source.
struct Draft {
    name: Option<String>,
    file: Option<ListSource>,
    url: Option<ListSource>,
    list: List,
}

fn read_list(file: &Source<'_>, keys: &DeTable<'_>, place: String) -> Result<List, ConfigError> {
    let nowhere = ListSource::Url(String::new());
    let mut draft =
        Draft { name: None, file: None, url: None, list: List::new(String::new(), nowhere, place) };
    for (name, value) in keys {
        let word = name.get_ref().as_ref();
        let written = plain(value, file);
        let Some((is_taken, expected)) = draft.take(word, &written) else {
            let place = file.place(name.span().start);
            return Err(unknown(place, "key", &format!("list.{word}"), &KEYS.map(str::to_owned)));
        };
        if !is_taken {
            let place = file.place(value.span().start);
            let shown = match (word, written.text()) {
                // It may hold a password.
                ("url", Some(url)) => format!("{:?}", list::without_secrets(url)),
                _ => written.to_string(),
            };
            let (key, value) = (format!("list.{word}"), shortened(&shown));
            return Err(ConfigError::Value { place, key, value, expected });
        }
    }
    draft.finish()
}

impl Draft {
    /// Takes one key; whether the value is right, and what would be. `None` for a key that there is not.
    fn take(&mut self, key: &str, value: &Value) -> Option<(bool, &'static str)> {
        let list = &mut self.list;
        Some(match key {
            "name" => {
                self.name = value.text().filter(|name| is_name(name)).map(str::to_owned);
                (self.name.is_some(), NAME)
            }
            "file" => {
                self.file =
                    value.path().filter(|path| path.file_name().is_some()).map(ListSource::File);
                (self.file.is_some(), FILE)
            }
            "url" => {
                let url = value.text().filter(|url| list::is_url(url));
                self.url = url.map(|url| ListSource::Url(url.to_owned()));
                (self.url.is_some(), URL)
            }
            "kind" => (assign(&mut list.kind, value.text().and_then(kind)), KIND),
            "syntax" => (assign(&mut list.syntax, value.text().and_then(syntax)), SYNTAX),
            "answer" => (assign(&mut list.answer, value.text().and_then(list::answer)), ANSWER),
            "ttl" => (assign(&mut list.ttl, value.count(0..=86_400)), TTL),
            "reason" => (assign(&mut list.reason, value.text().and_then(reason)), REASON),
            "refresh" => (assign(&mut list.refresh, value.refresh().map(Some)), REFRESH),
            _ => return None,
        })
    }

    fn finish(self) -> Result<List, ConfigError> {
        let Self { name, file, url, list } = self;
        let Some(name) = name else {
            let (key, value) = ("list.name".into(), "\"\"".into());
            return Err(ConfigError::Value { place: list.place, key, value, expected: NAME });
        };
        let source = match (file, url) {
            (Some(source), None) | (None, Some(source)) => source,
            (Some(_), Some(_)) => {
                return Err(conflict(
                    &list.place,
                    format!("list {name:?} has either a file or a url, not both"),
                ));
            }
            (None, None) => {
                return Err(conflict(&list.place, format!("list {name:?} needs a file or a url")));
            }
        };
        Ok(List { name, source, ..list })
    }
}

/// Assigns when the value could be read, and says whether.
fn assign<T>(target: &mut T, value: Option<T>) -> bool {
    value.map(|value| *target = value).is_some()
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.chars().count())
        && name.trim() == name
        && name != OVERRIDES_NAME
        && !name.chars().any(char::is_control)
}

fn kind(text: &str) -> Option<ListKind> {
    match text {
        "block" => Some(ListKind::Block),
        "allow" => Some(ListKind::Allow),
        _ => None,
    }
}

#[expect(
    clippy::option_option,
    reason = "the outer one says whether it is such a value, the inner one is the value"
)]
fn syntax(text: &str) -> Option<Option<ListSyntax>> {
    match text {
        "auto" => Some(None),
        "hosts" => Some(Some(ListSyntax::Hosts)),
        "domains" => Some(Some(ListSyntax::Domains)),
        "adblock" => Some(Some(ListSyntax::Adblock)),
        "dnsmasq" => Some(Some(ListSyntax::Dnsmasq)),
        "rpz" => Some(Some(ListSyntax::Rpz)),
        _ => None,
    }
}

fn reason(text: &str) -> Option<ListReason> {
    match text {
        "blocked" => Some(ListReason::Blocked),
        "filtered" => Some(ListReason::Filtered),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::config::{File, Filter, ListAnswer};

    fn load(text: &str) -> Result<Config, ConfigError> {
        Config::load(Some(File { name: "node.toml", text }), [], &[])
    }

    fn error(text: &str) -> String {
        load(text).unwrap_err().to_string()
    }

    #[test]
    fn list_needs_a_name_and_a_source_and_the_rest_has_defaults() {
        let config = load("[[list]]\nname = 'ads'\nurl = 'https://lists.example/ads.txt'").unwrap();
        let [list] = &config.lists[..] else { panic!("{config:?}") };
        let source = ListSource::Url("https://lists.example/ads.txt".into());
        assert_eq!(*list, List::new("ads".into(), source, "node.toml:1".into()));
        assert_eq!((list.kind, list.syntax, list.ttl), (ListKind::Block, None, 10));
        assert_eq!((&list.answer, list.reason), (&ListAnswer::ZeroIp, ListReason::Blocked));
        assert_eq!((list.refresh, config.filter), (None, Filter::default()));
    }

    #[test]
    fn everything_about_a_list_can_be_said() {
        let text = "[filter]\ndirectory = '/var/lib/x'\nrefresh = '1h'\nlist_bytes_max = '1MiB'\n\
            download_timeout = '5s'\nmemory = '64MiB'\n\
            [[list]]\nname = 'own words'\nfile = '/etc/own.txt'\nkind = 'allow'\nsyntax = 'rpz'\n\
            answer = 'ip:192.0.2.1, 2001:db8::1'\nttl = 0\nreason = 'filtered'\nrefresh = '0s'\n\
            [[list]]\nname = 'b'\nurl = 'http://[::1]:80/'\nsyntax = 'auto'\nanswer = 'cname:Blocked.example'\n";
        let config = load(text).unwrap();
        let filter = Filter {
            directory: Some("/var/lib/x".into()),
            refresh: Duration::from_secs(3_600),
            list_bytes_max: 1 << 20,
            download_timeout: Duration::from_secs(5),
            bytes: 64 << 20,
        };
        assert_eq!(config.filter, filter);
        let [own, second] = &config.lists[..] else { panic!("{config:?}") };
        assert_eq!(own.source, ListSource::File(PathBuf::from("/etc/own.txt")));
        assert_eq!((own.kind, own.syntax), (ListKind::Allow, Some(ListSyntax::Rpz)));
        assert_eq!((own.ttl, own.reason), (0, ListReason::Filtered));
        assert_eq!(own.refresh, Some(Duration::ZERO));
        let addresses = ["192.0.2.1", "2001:db8::1"].map(|address| address.parse().unwrap());
        assert_eq!(own.answer, ListAnswer::Addresses(addresses.to_vec()));
        let ListAnswer::Alias(alias) = &second.answer else { panic!("{second:?}") };
        assert_eq!(
            (alias.as_name().to_string().as_str(), second.syntax),
            ("blocked.example.", None)
        );
    }

    #[test]
    fn mistakes_in_lists_name_place_key_value_and_what_is_right() {
        let list = "[[list]]\nname = 'a'\nfile = '/a'\n";
        for (text, said) in [
            ("[[list]]\nfile = '/a'", "node.toml:1: list.name = \"\": expected a name"),
            ("[[list]]\nname = ' a'\nfile = '/a'", "node.toml:2: list.name = \" a\": expected"),
            ("[[list]]\nname = 'overrides'\nfile = '/a'", "and not \"overrides\""),
            ("[[list]]\nname = 'a'", "node.toml:1: list \"a\" needs a file or a url"),
            (
                "[[list]]\nname = 'a'\nfile = 'a'",
                "node.toml:3: list.file = \"a\": expected the abs",
            ),
            ("[[list]]\nname = 'a'\nfile = '/a'\nurl = 'http://a/'", "either a file or a url"),
            ("[[list]]\nname = 'a'\nurl = 'file:///etc/passwd'", "expected an http or https URL"),
            ("[[list]]\nname = 'a'\nfil = '/a'", "did you mean \"file\"?"),
            ("list = 5", "lists are written as [[list]] tables"),
            ("list = [5]", "lists are written as [[list]] tables"),
            ("[list]\nname = 'a'", "lists are written as [[list]] tables"),
            ("[filter]\nmemory = '16MiB'\n[[list]]\nname='a'\nfile='/a'", "than a quarter of"),
            (
                "[filter]\nrefresh = '5s'",
                "node.toml:2: filter.refresh = \"5s\": expected a duration",
            ),
        ] {
            let message = error(text);
            assert!(message.contains(said), "{message}");
        }
        for (key, said) in [
            ("kind = 'deny'", "node.toml:4: list.kind = \"deny\": expected \"block\" or \"allow\""),
            ("syntax = 'csv'", "list.syntax = \"csv\": expected \"auto\", \"hosts\""),
            ("answer = 'ip:'", "list.answer = \"ip:\": expected \"nxdomain\""),
            ("answer = 'ip:a.example'", "list.answer"),
            ("answer = 'cname:.'", "list.answer"),
            ("ttl = 86401", "list.ttl = 86401: expected a number of seconds"),
            ("reason = 'x'", "list.reason = \"x\": expected \"blocked\" or \"filtered\""),
            ("refresh = '59s'", "list.refresh = \"59s\": expected a duration from 1m"),
        ] {
            let message = error(&format!("{list}{key}"));
            assert!(message.contains(said), "{message}");
        }
    }

    #[test]
    fn no_two_lists_have_one_name_and_there_are_only_so_many() {
        let one = |name: usize| format!("[[list]]\nname = 'l{name}'\nfile = '/a'\n");
        let most: String = (0..LISTS_MAX).map(one).collect();
        assert_eq!(load(&most).unwrap().lists.len(), LISTS_MAX);
        let message = error(&(most.clone() + &one(LISTS_MAX)));
        assert!(message.contains("node.toml:766: more than 255 [[list]] tables"), "{message}");
        let message = error(&(one(1) + &one(1)));
        assert!(message.contains("node.toml:4: list.name = \"l1\" stands twice"), "{message}");
        assert!(message.contains("node.toml:1"), "{message}");
    }

    #[test]
    fn password_of_a_url_is_not_repeated() {
        let message = error("[[list]]\nname = 'a'\nurl = 'ftp://me:secret@lists.example/a?key=x'");
        assert!(!message.contains("secret") && !message.contains("key=x"), "{message}");
    }
}
