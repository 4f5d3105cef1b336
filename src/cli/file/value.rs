//! Values of a configuration file as the text that a flag would have.

use toml::de::DeValue;

/// A string.
pub(super) fn text<'v>(key: &str, value: &'v DeValue<'_>) -> Result<&'v str, String> {
    match value {
        DeValue::String(text) => Ok(text),
        other => Err(format!("{key} is {}; it has to be text in quotes", kind_of(other))),
    }
}

/// A list of strings.
pub(super) fn texts(key: &str, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    match value {
        DeValue::Array(array) => {
            array.iter().map(|each| text(key, each.get_ref()).map(str::to_owned)).collect()
        }
        other => Err(format!("{key} is {}; it has to be a list of texts", kind_of(other))),
    }
}

/// A truth value.
pub(super) fn truth(key: &str, value: &DeValue<'_>) -> Result<bool, String> {
    match value {
        DeValue::Boolean(truth) => Ok(*truth),
        other => Err(format!("{key} is {}; it has to be true or false", kind_of(other))),
    }
}

/// A string or a number, as text.
pub(super) fn scalar(key: &str, value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.clone().into_owned()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        other => Err(format!("{key} is {}; it has to be text or a plain number", kind_of(other))),
    }
}

/// A number, as text.
pub(super) fn number(key: &str, value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(_) => Err(format!("{key} is text; it has to be a number, without quotes")),
        other => scalar(key, other),
    }
}

/// One such value, or a list of them.
pub(super) fn scalars(key: &str, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    match value {
        DeValue::Array(array) => array.iter().map(|each| scalar(key, each.get_ref())).collect(),
        one => Ok(vec![scalar(key, one)?]),
    }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
