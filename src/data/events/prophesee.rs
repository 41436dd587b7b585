//! The text header of Prophesee's files: lines of `%`, a keyword and a value.

use super::SensorSize;
use super::format::Format;
use super::source::Source;
use anyhow::Result;

/// The cameras (`system_ID`) whose recordings are in EVT 2.0 if the header names no version, and those in EVT 3.0; from
/// OpenEB's `psee_raw_file_header.cpp` and `device_system_id.h`.
const EVT2_SYSTEMS: [u32; 16] = [21, 23, 25, 26, 28, 29, 31, 33, 34, 35, 39, 41, 151, 153, 161, 162];
const EVT3_SYSTEMS: [u32; 4] = [30, 40, 46, 48];
/// The same, by the name of the software's plugin.
const EVT2_PLUGINS: [&str; 2] = ["hal_plugin_gen3_fx3", "hal_plugin_gen31_fx3"];

/// A header's lines.
pub(super) struct Header(Vec<String>);

impl Header {
    /// Reads the lines, up to `% end`, if there is one.
    pub fn read(source: &mut Source) -> Result<Self> {
        source.header_to("%", "% end").map(Self)
    }

    /// The value of a keyword, ignoring case.
    pub fn value(&self, key: &str) -> Option<&str> {
        let behind = |line: &'_ String| -> Option<usize> {
            let at = line.find(|c| c != '%' && c != ' ')?;
            let (word, _) = line[at..].split_once(' ')?;
            word.eq_ignore_ascii_case(key).then_some(at + word.len())
        };
        self.0.iter().find_map(|line| Some(line[behind(line)?..].trim()))
    }

    /// The format named by the lines: `% evt 3.0`, `% format EVT3;…`, `% Data file containing …`; `None` if no line names one.
    ///
    /// # Errors
    /// If it is a format that is not supported.
    fn named(&self, name: &str) -> Result<Option<Format>> {
        let Some(kind) = self.value("format").or_else(|| self.value("evt")) else {
            let data = self.value("data").is_some_and(|rest| rest.starts_with("file containing"));
            return Ok(data.then_some(Format::Dat));
        };
        match kind.split(';').next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "3.0" | "evt3" => Ok(Some(Format::Evt3)),
            "2.0" | "evt2" => Ok(Some(Format::Evt2)),
            other => crate::bail_input!(
                "{name} is a RAW recording of {other}, but EVT 2.0 and 3.0 are read; record it as EVT 3.0, or convert it \
                 with Metavision's metavision_file_to_dat"
            ),
        }
    }

    /// The format implied by the camera that the lines name, and that line.
    fn by_camera(&self) -> Option<(Format, String)> {
        let system = self.value("system_id").and_then(|id| id.parse().ok());
        let plugin = self.value("plugin_name");
        match (system, plugin) {
            (Some(id), _) if EVT2_SYSTEMS.contains(&id) => Some((Format::Evt2, format!("system_ID {id}"))),
            (Some(id), _) if EVT3_SYSTEMS.contains(&id) => Some((Format::Evt3, format!("system_ID {id}"))),
            (None, Some(name)) if EVT2_PLUGINS.contains(&name) => Some((Format::Evt2, format!("plugin_name {name}"))),
            _ => None,
        }
    }

    /// The format of a file that begins with `%`.
    ///
    /// # Errors
    /// If no line tells the format.
    pub fn format(&self, name: &str, extension: Option<&str>) -> Result<Format> {
        if let Some(format) = self.named(name)? {
            return Ok(format);
        }
        match (extension, self.by_camera()) {
            (Some("csv" | "txt"), _) => Ok(Format::Csv),
            (Some("dat"), _) if self.value("version").is_some() => Ok(Format::Dat),
            (_, Some((format, _))) => Ok(format),
            _ => Err(crate::input_error!(
                "{name} has a header of % that names no format (evt or format) and no camera (system_ID) that is known; say \
                 --format evt2 for older RAW recordings, evt3 for newer, dat or csv"
            )),
        }
    }

    /// What a reader of `format` should report about the header.
    pub fn notes(&self, format: Format) -> Vec<String> {
        match (self.named(""), self.by_camera()) {
            (Ok(Some(named)), _) if named == format => Vec::new(),
            (Ok(Some(named)), _) => vec![format!("the header names {named}; read as {format}, as --format says")],
            (Ok(None), Some((by_camera, line))) if by_camera == format => {
                vec![format!("the header names no format; {format} is assumed from its {line}")]
            }
            _ => Vec::new(),
        }
    }

    /// The sensor's size: `% geometry 1280x720`, `% format EVT3;width=1280;height=720`, `% Width 1280` and `% Height 720`.
    pub fn size(&self) -> Option<SensorSize> {
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let option = |key: &str| {
            let pairs = self.value("format")?.split(';').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(found, _)| found.trim().eq_ignore_ascii_case(key)).find_map(|(_, value)| number(value))
        };
        let line = |key: &str| self.value(key).and_then(number);
        let pair = |width: Option<u64>, height: Option<u64>| SensorSize::stated(width?, height?);
        let geometry = self.value("geometry").and_then(|text| text.split_once('x'));
        pair(option("width"), option("height"))
            .or_else(|| geometry.and_then(|(width, height)| pair(number(width), number(height))))
            .or_else(|| pair(line("width"), line("height")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(lines: &[&str]) -> Header {
        Header(lines.iter().map(|line| line.to_string()).collect())
    }

    #[test]
    fn sizes_are_read_from_headers() {
        let size = |lines: &[&str]| header(lines).size().map(|s| (s.width, s.height));
        assert_eq!(size(&["% format EVT3;width=1280;height=720"]), Some((1280, 720)));
        assert_eq!(size(&["% geometry 640x480", "% evt 3.0"]), Some((640, 480)));
        assert_eq!(size(&["% Height 240", "% Width 304"]), Some((304, 240)));
        assert_eq!(size(&["% Width 304"]), None);
        assert_eq!(size(&["% geometry 65536x65536"]), Some((65536, 65536)));
        assert_eq!(size(&["% geometry 640x0"]), None);
        assert_eq!(size(&["% geometry 65537x480"]), None);
        assert_eq!(size(&[]), None);
    }

    #[test]
    fn formats_are_named_or_follow_from_the_camera() {
        let format = |lines: &[&str], extension| header(lines).format("x", extension).ok();
        assert_eq!(format(&["% evt 3.0"], Some("raw")), Some(Format::Evt3));
        assert_eq!(format(&["% evt 2.1"], Some("raw")), None);
        assert_eq!(format(&["% format EVT21;endianness=legacy"], Some("raw")), None);
        assert_eq!(format(&["% system_ID 21"], Some("raw")), Some(Format::Evt2));
        assert_eq!(format(&["% system_ID 48"], Some("raw")), Some(Format::Evt3));
        assert_eq!(format(&["% plugin_name hal_plugin_gen31_fx3"], Some("raw")), Some(Format::Evt2));
        assert_eq!(format(&["% plugin_name hal_plugin_gen31_fx3", "% system_ID 4711"], Some("raw")), None);
        assert_eq!(format(&["% Data file containing CD events."], None), Some(Format::Dat));
        assert_eq!(format(&["% Version 2"], Some("dat")), Some(Format::Dat));
        assert_eq!(format(&["% Version 2"], Some("raw")), None);
        assert_eq!(format(&["%geometry:1280,720"], Some("csv")), Some(Format::Csv));
        assert_eq!(format(&[], Some("dat")), None);
    }

    #[test]
    fn what_was_assumed_is_said() {
        assert!(header(&["% evt 2.0"]).notes(Format::Evt2).is_empty());
        assert!(header(&["% evt 2.0"]).notes(Format::Evt3)[0].contains("read as evt3"));
        assert!(header(&["% system_ID 21"]).notes(Format::Evt2)[0].contains("system_ID 21"));
        assert!(header(&["% system_ID 4711"]).notes(Format::Evt2).is_empty());
    }
}
