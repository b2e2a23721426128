//! The command line.

use std::path::PathBuf;

pub const USAGE: &str = "script/bench [--quick] [--json FILE] [--only PART] [--set KEY=VALUE]...";

#[derive(Debug, Default)]
pub struct Options {
    pub is_quick: bool,
    pub json: Option<PathBuf>,
    pub only: String,
    /// Of the relay's configuration.
    pub settings: Vec<(String, String)>,
    pub is_help: bool,
}

impl Options {
    /// Or what is wrong with them.
    pub fn parse(arguments: &[&str]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut arguments = arguments.iter();
        while let Some(&name) = arguments.next() {
            let mut value =
                || arguments.next().map(ToString::to_string).ok_or_else(|| format!("{name} wants a value"));
            match name {
                "--quick" => options.is_quick = true,
                "--json" => options.json = Some(value()?.into()),
                "--only" => options.only = value()?,
                "--set" => {
                    let setting = value()?;
                    let (key, value) =
                        setting.split_once('=').ok_or_else(|| format!("not KEY=VALUE: {setting}"))?;
                    options.settings.push((key.to_owned(), value.to_owned()));
                }
                "--help" | "-h" => options.is_help = true,
                other => return Err(format!("unknown: {other}")),
            }
        }
        let is_whole = !options.is_quick && options.only.is_empty() && options.settings.is_empty();
        match &options.json {
            // The results of a whole run take 20 minutes to get back.
            Some(file) if !is_whole && file.exists() => Err(format!(
                "{} is there: only a whole run, without --quick, --only and --set, takes its place",
                file.display()
            )),
            _ => Ok(options),
        }
    }
}
