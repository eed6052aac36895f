//! The OpenAPI document, written from the table of routes.

use serde_json::{Map, Value, json};

use super::guard::Access;
use super::parameters::TEXT_CHARS_MAX;
use super::routes::{Answer, Form, NAMES_MAX, Parameter, ROUTES, Route, Verb};

/// The document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for route in &ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.verb.method().as_str().to_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.0.3",
        "info": {
            "title": "heimdall-uring",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Figures and commands of a node that runs.",
            "license": { "name": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": { "error": { "type": "string" } },
                },
            },
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut responses = Map::new();
    responses.insert(
        "200".to_owned(),
        json!({ "description": "It is done.", "content": content(&route.answer) }),
    );
    let mut refuse = |status: &str, why: &str| {
        let schema = json!({ "$ref": "#/components/schemas/Error" });
        let refusal =
            json!({ "description": why, "content": { "application/json": { "schema": schema } } });
        responses.insert(status.to_owned(), refusal);
    };
    refuse("400", "A parameter is wrong, missing or unknown.");
    refuse("401", "The token is missing or wrong.");
    refuse("403", "Not from this host or site, or not without a token.");
    refuse("503", "A core does not answer, or too much is asked at a time.");
    if route.verb == Verb::Post || route.may_conflict {
        refuse("409", "The config does not provide for it, or has a mistake.");
    }
    let takes = |name: &str| route.parameters.iter().any(|one| one.name == name);
    if route.verb == Verb::Post && takes("list") {
        refuse("404", "No list has that name.");
    }
    if takes("listener") {
        refuse("404", "The node does not listen there.");
    }
    if route.verb == Verb::Post {
        refuse("408", "The body took too long.");
        refuse("413", "The body is too long.");
        refuse("415", "The body is not said to be JSON.");
    }
    let mut operation = json!({
        "operationId": format!("{:?}", route.action),
        "summary": route.summary,
        "responses": responses,
        "security": match route.access {
            Access::Figures => json!([{}, { "token": [] }]),
            Access::Control => json!([{ "token": [] }]),
        },
    });
    if route.verb == Verb::Post {
        operation["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": body(route) } },
        });
    } else if !route.parameters.is_empty() {
        operation["parameters"] = route.parameters.iter().map(in_query).collect();
    }
    operation
}

fn content(answer: &Answer) -> Value {
    match answer {
        Answer::Json(members) => {
            let properties: Map<String, Value> =
                members.iter().map(|(name, form)| ((*name).to_owned(), property(form))).collect();
            let names: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
            json!({ "application/json": { "schema": {
                "type": "object", "required": names, "properties": properties, "additionalProperties": false,
            } } })
        }
        Answer::Text(media) => {
            let schema = json!({ "schema": { "type": "string" } });
            media.iter().map(|media| ((*media).to_owned(), schema.clone())).collect()
        }
    }
}

/// The schema of a member; one whose type ends in `?` may be null.
fn property(form: &str) -> Value {
    let (form, may_be_null) = form.strip_suffix('?').map_or((form, false), |form| (form, true));
    let mut schema = if form == "array" {
        json!({ "type": form, "items": {} })
    } else {
        json!({ "type": form })
    };
    if may_be_null {
        schema["nullable"] = true.into();
    }
    schema
}

/// A body with the parameters of `route`: in one of its combinations, or all together.
fn body(route: &Route) -> Value {
    let required = route.parameters.iter().filter(|parameter| parameter.is_required);
    let required: Vec<&str> = required.map(|parameter| parameter.name).collect();
    if route.choices.is_empty() {
        return object(route.parameters.iter(), &required);
    }
    let choice = |names: &&[&str]| {
        let members = route.parameters.iter().filter(|parameter| names.contains(&parameter.name));
        let first = names.get(..1).unwrap_or_default();
        object(members, &[first, &required].concat())
    };
    json!({ "oneOf": route.choices.iter().map(choice).collect::<Vec<_>>() })
}

fn object<'p>(members: impl Iterator<Item = &'p Parameter>, required: &[&str]) -> Value {
    let member = |parameter: &Parameter| {
        let mut schema = schema(&parameter.form);
        schema["description"] = parameter.text.into();
        (parameter.name.to_owned(), schema)
    };
    let properties: Map<String, Value> = members.map(member).collect();
    let mut object =
        json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

fn in_query(parameter: &Parameter) -> Value {
    json!({
        "name": parameter.name,
        "in": "query",
        "required": parameter.is_required,
        "description": parameter.text,
        "schema": schema(&parameter.form),
    })
}

/// Labels of visible characters of ASCII and escapes (RFC 1035 §5.1), or the root.
fn name_pattern() -> String {
    const PLAIN: &str = r"[!-\-/-\[\]-~]";
    const ESCAPED: &str = r"\\[!-/:-~]|\\([01][0-9][0-9]|2[0-4][0-9]|25[0-5])";
    let label = format!("({PLAIN}|{ESCAPED}){{1,63}}");
    format!(r"^(\.|({label}\.)*{label}\.?)$")
}

fn schema(form: &Form) -> Value {
    match form {
        Form::Name => {
            json!({ "type": "string", "example": "www.example.com", "pattern": name_pattern() })
        }
        Form::Names => json!({
            "type": "array", "minItems": 1, "maxItems": NAMES_MAX, "items": schema(&Form::Name),
        }),
        Form::Type => {
            json!({ "type": "string", "example": "AAAA", "pattern": "^(A|AAAA|CNAME|HTTPS|MX|NS|PTR|SOA|SRV|TXT|TYPE[0-9]{1,4})$" })
        }
        Form::Rcode => {
            json!({ "type": "string", "example": "NXDOMAIN", "pattern": "^(NOERROR|FORMERR|SERVFAIL|NXDOMAIN|NOTIMP|REFUSED|YXDOMAIN|BADVERS|RCODE[0-9]{1,3})$" })
        }
        Form::Text => json!({ "type": "string", "minLength": 1, "maxLength": TEXT_CHARS_MAX }),
        Form::Address => json!({ "type": "string", "example": "192.0.2.1", "oneOf": [
            { "type": "string", "format": "ipv4" }, { "type": "string", "format": "ipv6" },
        ] }),
        Form::Span => {
            json!({ "type": "string", "example": "10m", "pattern": "^[1-9][0-9]{0,3}[smh]$|^[1-9][0-9]{0,2}d$" })
        }
        Form::Choice(words) => json!({ "type": "string", "enum": words }),
        Form::Count(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Form::Switch => json!({ "type": "boolean" }),
        Form::Mark => json!({ "type": "boolean", "enum": [true] }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_with_its_parameters() {
        let document = document();
        for route in &ROUTES {
            let operation =
                &document["paths"][route.path][route.verb.method().as_str().to_lowercase()];
            assert_eq!(operation["summary"], route.summary, "{}", route.path);
            for parameter in route.parameters {
                let text = operation.to_string();
                assert!(text.contains(parameter.text), "{} {}", route.path, parameter.name);
            }
        }
        let kept = &document["paths"]["/api/v1/queries"]["get"];
        assert!(kept["responses"]["409"].is_object(), "the store may be off");
        let explained = &document["paths"]["/api/v1/explain"]["get"];
        assert!(explained["responses"]["404"].is_object(), "a listener may not be there");
        assert_eq!(
            document["paths"].as_object().unwrap().len(),
            ROUTES.len() - 1,
            "one path has two methods"
        );
    }
}
