//! A request as somebody captured it.

use std::path::Path;

use anyhow::Context;
use clearfeed_relay::domain::delivery::HeaderValue;

/// Its headers and its body.
pub(super) struct Capture {
    /// Names in lower case.
    headers: Vec<(String, Vec<u8>)>,
    /// Of the request line, where there is one.
    pub(super) method: Option<String>,
    pub(super) target: Option<String>,
    pub(super) body: Vec<u8>,
}

impl Capture {
    /// Reads both files. One header a line, `Name: value`, as proxies log them and `curl -v` shows them; a request line before
    /// them may be there.
    pub(super) fn read(headers: &Path, body: &Path) -> anyhow::Result<Self> {
        let content = |file: &Path| std::fs::read(file).with_context(|| file.display().to_string());
        let (lines, body) = (content(headers)?, content(body)?);
        let mut capture = Self { headers: Vec::new(), method: None, target: None, body };
        for (number, line) in lines.split(|byte| *byte == b'\n').enumerate() {
            // `curl -v` puts this before each line that it sent.
            let line = line.strip_prefix(b"> ").unwrap_or(line).trim_ascii();
            if !line.is_empty() {
                capture.take(line).with_context(|| {
                    let text = String::from_utf8_lossy(line);
                    format!("{}: line {}: found {text:?}, wanted Name: value", headers.display(), number + 1)
                })?;
            }
        }
        Ok(capture)
    }

    fn take(&mut self, line: &[u8]) -> Option<()> {
        let text = String::from_utf8_lossy(line);
        let words: Vec<_> = text.split(' ').collect();
        if let [method, target, version] = words[..]
            && version.starts_with("HTTP/")
        {
            (self.method, self.target) = (Some(method.to_owned()), Some(target.to_owned()));
            return Some(());
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name =
            std::str::from_utf8(&line[..colon]).ok().filter(|name| !name.contains(char::is_whitespace))?;
        self.headers.push((name.to_ascii_lowercase(), line[colon + 1..].trim_ascii().to_owned()));
        Some(())
    }

    /// A header by its name in lower case.
    pub(super) fn header(&self, name: &str) -> HeaderValue<'_> {
        let mut values = self.headers.iter().filter(|(header, _)| header == name).map(|(_, value)| value);
        match (values.next(), values.next()) {
            (None, _) => HeaderValue::Absent,
            (Some(value), None) => HeaderValue::One(value),
            (Some(_), Some(_)) => HeaderValue::Several,
        }
    }
}
