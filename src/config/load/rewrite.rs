//! Reads `[[rewrite]]` tables.

use toml::Spanned;
use toml::de::DeValue;

use super::{Source, misshapen, plain, shortened, unknown};
use crate::config::rewrite::SINGLE_TTL_DEFAULT;
use crate::config::{Config, ConfigError, Rewrite, RewriteTarget};

/// Keys of such a table.
const KEYS: [&str; 3] = ["name", "to", "ttl"];

/// What they take.
const NAME: &str = "a domain name such as \"nas.example\" or \"*.apps.example\"";
const TO: &str = "an address or a list of them, each once, such as [\"192.0.2.7\", \"2001:db8::7\"], or a domain name such as \"other.example.\"";
const TTL: &str = "a number of seconds from 0 to 86400";

/// Most addresses of one name.
const ADDRESSES_MAX: usize = 1_024;

impl Config {
    /// Reads one table.
    pub(super) fn read_rewrite(
        &mut self,
        file: &Source<'_>,
        table: &Spanned<DeValue<'_>>,
    ) -> Result<(), ConfigError> {
        let place = file.place(table.span().start);
        let DeValue::Table(keys) = table.get_ref() else {
            return Err(misshapen(&place, "rewrite"));
        };
        let (mut name, mut to, mut ttl) = (None, None, SINGLE_TTL_DEFAULT);
        for (key, value) in keys {
            let word = key.get_ref().as_ref();
            let written = plain(value, file);
            let (is_taken, expected) = match word {
                "name" => {
                    let text = written.text().filter(|text| !text.is_empty());
                    name = text.map(str::to_owned);
                    (name.is_some(), NAME)
                }
                "to" => {
                    let items = written.items().filter(|items| items.len() <= ADDRESSES_MAX);
                    to = items.and_then(|items| RewriteTarget::read(&items));
                    (to.is_some(), TO)
                }
                "ttl" => {
                    let seconds = written.count(0..=86_400);
                    ttl = seconds.unwrap_or_default();
                    (seconds.is_some(), TTL)
                }
                other => {
                    let place = file.place(key.span().start);
                    let names = KEYS.map(str::to_owned);
                    return Err(unknown(place, "key", &format!("rewrite.{other}"), &names));
                }
            };
            if !is_taken {
                let place = file.place(value.span().start);
                let (key, value) = (format!("rewrite.{word}"), shortened(&written.to_string()));
                return Err(ConfigError::Value { place, key, value, expected });
            }
        }
        let missing = |key: &str, expected| ConfigError::Value {
            place: place.clone(),
            key: format!("rewrite.{key}"),
            value: "nothing".into(),
            expected,
        };
        let name = name.ok_or_else(|| missing("name", NAME))?;
        let to = to.ok_or_else(|| missing("to", TO))?;
        self.rewrites.push(Rewrite { name, to, ttl, place });
        Ok(())
    }
}
