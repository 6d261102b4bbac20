//! Series as `OpenMetrics` text, written straight into bytes: a scrape of very many personas has very many.

use axum::body::Bytes;

/// A piece of the text.
#[derive(Debug)]
pub(super) struct Text(Vec<u8>);

/// What a family's numbers are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// They only grow.
    Counter,
    /// They go up and down.
    Gauge,
    /// Times, by how long they are.
    Histogram,
}

impl Text {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What comes before the series of a family; neither text has anything to escape.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.parts(["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n"]);
    }

    /// Text as it is.
    #[inline(always)]
    pub(super) fn parts<const N: usize>(&mut self, parts: [&str; N]) {
        for part in parts {
            self.0.extend_from_slice(part.as_bytes());
        }
    }

    /// The value of a label that anybody may have chosen.
    pub(super) fn label(&mut self, value: &str) {
        for byte in value.bytes() {
            match byte {
                b'\\' => self.parts(["\\\\"]),
                b'"' => self.parts(["\\\""]),
                b'\n' => self.parts(["\\n"]),
                _ => self.0.push(byte),
            }
        }
    }

    #[inline(always)]
    pub(super) fn number(&mut self, number: u64) {
        if number < 10 {
            self.0.push(b'0' + number as u8);
        } else {
            self.0.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        }
    }

    /// Microseconds, as seconds.
    pub(super) fn seconds(&mut self, time_us: u64) {
        self.number(time_us / 1_000_000);
        self.0.push(b'.');
        let (mut left, mut unit) = (time_us % 1_000_000, 100_000);
        loop {
            self.number(left / unit);
            left %= unit;
            unit /= 10;
            if left == 0 || unit == 0 {
                break;
            }
        }
    }

    /// One series: what is before its value, and the value.
    #[inline(always)]
    pub(super) fn line<const N: usize>(&mut self, parts: [&str; N], value: u64) {
        self.parts(parts);
        self.number(value);
        self.0.push(b'\n');
    }

    /// As [`Self::line`], with a time.
    pub(super) fn time<const N: usize>(&mut self, parts: [&str; N], time_us: u64) {
        self.parts(parts);
        self.seconds(time_us);
        self.0.push(b'\n');
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.0.into()
    }

    /// All of it is text, since only text was put in.
    pub(super) fn into_string(self) -> String {
        String::from_utf8(self.0).expect("labels were cut at no place within a character")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Text)) -> String {
        let mut text = Text::with_capacity(0);
        write(&mut text);
        text.into_string()
    }

    #[test]
    fn labels_cannot_leave_their_quotes() {
        let nasty = "a\"b\\c\nd\\n é";
        let line = written(|text| {
            text.parts(["x{l=\""]);
            text.label(nasty);
            text.line(["\"} "], 3);
        });
        assert_eq!(line, "x{l=\"a\\\"b\\\\c\\nd\\\\n é\"} 3\n");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn numbers_and_times_are_whole() {
        for number in [0, 1, 9, 10, 99, 12_345, u64::MAX] {
            assert_eq!(written(|text| text.number(number)), number.to_string());
        }
        for (time_us, seconds) in [
            (0, "0.0"),
            (1, "0.000001"),
            (64, "0.000064"),
            (80, "0.00008"),
            (2_500, "0.0025"),
            (1_000_000, "1.0"),
            (67_108_864, "67.108864"),
            (10_050_000, "10.05"),
        ] {
            assert_eq!(written(|text| text.seconds(time_us)), seconds);
        }
    }
}
