//! How a file becomes the images that a model sees: fit, crops, window and choice of frames.
//!
//! One reader of the settings, for requests, the command line and `models.toml`: the same words
//! mean the same everywhere.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::ImageFit;

/// All settings of a file's preparation.
#[derive(Clone, Debug, PartialEq)]
pub struct Preparation {
    /// How an image that is not square becomes one.
    pub fit: ImageFit,
    /// Crops beside an image that is far from square; `None` makes none.
    pub pan_and_scan: Option<PanAndScan>,
    /// Which stored values become black and white, in files that have more than 256.
    pub window: WindowChoice,
    /// Windows of CT in the model's way.
    pub ct_windows: CtWindows,
    /// Which frames of a file are shown.
    pub frames: FrameChoice,
}

/// The windows of CT that a generation of MedGemma was trained with: one for red, one for green and
/// one for blue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CtWindows {
    /// The first generation: 2250 wide around −100, 350 around 40, 80 around 40.
    MedGemma1,
    /// MedGemma 1.5: −1024 to 1024, −135 to 215, 0 to 80.
    #[default]
    MedGemma15,
}

impl CtWindows {
    /// Returns the windows for red, green and blue, in Hounsfield units.
    pub fn windows(self) -> [Window; 3] {
        let wide = match self {
            Self::MedGemma1 => (-100.0, 2250.0),
            Self::MedGemma15 => (0.0, 2048.0),
        };
        [wide, (40.0, 350.0), (40.0, 80.0)].map(|(center, width)| Window { center, width })
    }
}

impl Default for Preparation {
    /// What the server does where nothing else is said: as transformers does it.
    fn default() -> Self {
        PreparationFields::default().resolve()
    }
}

/// Crops of an image that is far from square, by the rules of transformers'
/// `Gemma3ImageProcessor.pan_and_scan_batched`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PanAndScan {
    /// Least pixels of a crop's shorter side; at least 1.
    pub min_crop_size: u32,
    /// Most crops of an image; at least 1.
    pub max_num_crops: u32,
    /// Ratio of the longer side to the shorter from which on there are crops.
    pub min_ratio_to_activate: f64,
}

impl Default for PanAndScan {
    /// Transformers' values for Gemma 3.
    fn default() -> Self {
        Self {
            min_crop_size: 256,
            max_num_crops: 4,
            min_ratio_to_activate: 1.2,
        }
    }
}

/// A range of stored values, in the unit of the file (Hounsfield units in CT).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// The value in the middle of the range; finite.
    pub center: f64,
    /// The length of the range; above 0 and finite.
    pub width: f64,
}

/// Which stored values become black and white.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum WindowChoice {
    /// By modality, as the model was trained.
    #[default]
    Model,
    /// The window that the file's header names.
    Header,
    /// A window that radiologists have a name for.
    Preset(WindowPreset),
    /// One window.
    One(Window),
    /// One for red, one for green and one for blue.
    Three([Window; 3]),
}

/// A window that radiologists have a name for, in Hounsfield units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowPreset {
    /// 40 / 80
    Brain,
    /// 75 / 215
    Subdural,
    /// 32 / 8
    Stroke,
    /// −600 / 1500
    Lung,
    /// 50 / 350
    Mediastinum,
    /// 400 / 1800
    Bone,
    /// 40 / 400
    Abdomen,
    /// 60 / 150
    Liver,
}

impl WindowPreset {
    /// All presets.
    pub const ALL: [Self; 8] = [
        Self::Brain,
        Self::Subdural,
        Self::Stroke,
        Self::Lung,
        Self::Mediastinum,
        Self::Bone,
        Self::Abdomen,
        Self::Liver,
    ];

    /// Returns its name in requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Brain => "brain",
            Self::Subdural => "subdural",
            Self::Stroke => "stroke",
            Self::Lung => "lung",
            Self::Mediastinum => "mediastinum",
            Self::Bone => "bone",
            Self::Abdomen => "abdomen",
            Self::Liver => "liver",
        }
    }

    /// Returns its range.
    pub fn window(self) -> Window {
        let (center, width) = match self {
            Self::Brain => (40.0, 80.0),
            Self::Subdural => (75.0, 215.0),
            Self::Stroke => (32.0, 8.0),
            Self::Lung => (-600.0, 1500.0),
            Self::Mediastinum => (50.0, 350.0),
            Self::Bone => (400.0, 1800.0),
            Self::Abdomen => (40.0, 400.0),
            Self::Liver => (60.0, 150.0),
        };
        Window { center, width }
    }
}

/// Most frames of a file that are shown unless the request chooses.
pub const EVEN_FRAMES: usize = 8;

/// Which frames of a file are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FrameChoice {
    /// All up to [`EVEN_FRAMES`]; of more, as many chosen evenly.
    #[default]
    Even,
    /// All of them.
    All,
    /// These, numbered from 1, in this order; never empty.
    Numbers(Arc<[u32]>),
}

impl FrameChoice {
    /// Returns the indices (from 0) of the frames that are shown of `num_frames`.
    ///
    /// # Errors
    /// The first number that the file does not have.
    pub fn of(&self, num_frames: usize) -> Result<Vec<usize>, u32> {
        match self {
            Self::Even if num_frames > EVEN_FRAMES => {
                // The first and the last, and the others at equal distances, rounded.
                let gaps = EVEN_FRAMES - 1;
                let at = |idx| (idx * (num_frames - 1) * 2 + gaps) / (gaps * 2);
                Ok((0..EVEN_FRAMES).map(at).collect())
            }
            Self::Even | Self::All => Ok((0..num_frames).collect()),
            Self::Numbers(numbers) => {
                let idx = |number: &u32| match *number as usize {
                    at @ 1.. if at <= num_frames => Ok(at - 1),
                    _ => Err(*number),
                };
                numbers.iter().map(idx).collect()
            }
        }
    }
}

/// The settings that one place gives; what it leaves out, the next place decides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PreparationFields {
    /// `fit`
    pub fit: Option<ImageFit>,
    /// `do_pan_and_scan`
    pub do_pan_and_scan: Option<bool>,
    /// `pan_and_scan_min_crop_size`
    pub min_crop_size: Option<u32>,
    /// `pan_and_scan_max_num_crops`
    pub max_num_crops: Option<u32>,
    /// `pan_and_scan_min_ratio_to_activate`
    pub min_ratio_to_activate: Option<f64>,
    /// `window`
    pub window: Option<WindowChoice>,
    /// `ct_windows`
    pub ct_windows: Option<CtWindows>,
    /// `frames`
    pub frames: Option<FrameChoice>,
    /// `size`, as height and width, which must be the model's own.
    pub size: Option<[u64; 2]>,
}

/// A setting that is unknown or has a wrong value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparationError {
    /// The setting's name.
    pub name: String,
    /// What is wrong with it, as the end of a sentence that begins with the name.
    pub message: String,
}

impl fmt::Display for PreparationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' {}", self.name, self.message)
    }
}

impl PreparationFields {
    /// Names of the settings that change something.
    pub const NAMES: [&'static str; 8] = [
        "fit",
        "do_pan_and_scan",
        "pan_and_scan_min_crop_size",
        "pan_and_scan_max_num_crops",
        "pan_and_scan_min_ratio_to_activate",
        "window",
        "ct_windows",
        "frames",
    ];

    /// Reads the settings; null is as absent. Settings of transformers' processor that have the
    /// value of what is done anyway are taken and have no effect.
    ///
    /// # Errors
    /// The first setting that is unknown or has a wrong value.
    pub fn read(settings: &Map<String, Value>) -> Result<Self, PreparationError> {
        let mut fields = Self::default();
        for (name, value) in settings {
            if !value.is_null() {
                fields
                    .set(name, value)
                    .map_err(|message| PreparationError {
                        name: name.clone(),
                        message,
                    })?;
            }
        }
        Ok(fields)
    }

    /// Fills what is not given with `fallback`'s.
    #[must_use]
    pub fn or(self, fallback: &Self) -> Self {
        Self {
            fit: self.fit.or(fallback.fit),
            do_pan_and_scan: self.do_pan_and_scan.or(fallback.do_pan_and_scan),
            min_crop_size: self.min_crop_size.or(fallback.min_crop_size),
            max_num_crops: self.max_num_crops.or(fallback.max_num_crops),
            min_ratio_to_activate: (self.min_ratio_to_activate).or(fallback.min_ratio_to_activate),
            window: self.window.or(fallback.window),
            ct_windows: self.ct_windows.or(fallback.ct_windows),
            frames: self.frames.or_else(|| fallback.frames.clone()),
            size: self.size.or(fallback.size),
        }
    }

    /// Returns the whole preparation, with the server's own values for what is not given.
    pub fn resolve(self) -> Preparation {
        let own = PanAndScan::default();
        let pan_and_scan = PanAndScan {
            min_crop_size: self.min_crop_size.unwrap_or(own.min_crop_size),
            max_num_crops: self.max_num_crops.unwrap_or(own.max_num_crops),
            min_ratio_to_activate: (self.min_ratio_to_activate)
                .unwrap_or(own.min_ratio_to_activate),
        };
        Preparation {
            fit: self.fit.unwrap_or(ImageFit::Squash),
            pan_and_scan: (self.do_pan_and_scan == Some(true)).then_some(pan_and_scan),
            window: self.window.unwrap_or_default(),
            ct_windows: self.ct_windows.unwrap_or_default(),
            frames: self.frames.unwrap_or_default(),
        }
    }

    /// Checks `size` against the side of the square that the model takes, in pixels.
    ///
    /// # Errors
    /// A size that the model does not take.
    pub fn check_size(&self, side: usize) -> Result<(), PreparationError> {
        match self.size {
            Some(size) if size != [side as u64; 2] => Err(PreparationError {
                name: "size".to_owned(),
                message: format!(
                    "is {} × {}, but this model takes {side} × {side} pixels: leave it out.",
                    size[0], size[1]
                ),
            }),
            _ => Ok(()),
        }
    }

    fn set(&mut self, name: &str, value: &Value) -> Result<(), String> {
        match name {
            "fit" => {
                self.fit = Some(match value.as_str() {
                    Some("squash") => ImageFit::Squash,
                    Some("pad") => ImageFit::Pad,
                    _ => return Err("must be \"squash\" or \"pad\".".to_owned()),
                });
            }
            "do_pan_and_scan" => {
                let switch = value.as_bool().ok_or("must be true or false.")?;
                self.do_pan_and_scan = Some(switch);
            }
            "pan_and_scan_min_crop_size" => self.min_crop_size = Some(count(value)?),
            "pan_and_scan_max_num_crops" => self.max_num_crops = Some(count(value)?),
            "pan_and_scan_min_ratio_to_activate" => {
                let ratio = value.as_f64().filter(|ratio| *ratio >= 0.0);
                self.min_ratio_to_activate = Some(ratio.ok_or("must be a number from 0 on.")?);
            }
            "window" => self.window = Some(window_choice(value)?),
            "ct_windows" => {
                self.ct_windows = Some(match value.as_str() {
                    Some("medgemma-1") => CtWindows::MedGemma1,
                    Some("medgemma-1.5") => CtWindows::MedGemma15,
                    _ => return Err("must be \"medgemma-1\" or \"medgemma-1.5\".".to_owned()),
                });
            }
            "frames" => self.frames = Some(frame_choice(value)?),
            "size" => {
                let side = |name| value.get(name).and_then(Value::as_u64);
                let sides = side("height").zip(side("width"));
                let (height, width) =
                    sides.ok_or("must be like {\"height\": 896, \"width\": 896}.")?;
                self.size = Some([height, width]);
            }
            _ => return done_anyway(name, value),
        }
        Ok(())
    }
}

/// Checks a setting of transformers' processor that cannot be changed here.
fn done_anyway(name: &str, value: &Value) -> Result<(), String> {
    let halves = [0.5; 3];
    let is_halves = |value: &Value| match value.as_array() {
        Some(list) => list.iter().map(Value::as_f64).eq(halves.map(Some)),
        None => value.as_f64() == Some(0.5),
    };
    let (is_done, what) = match name {
        "do_resize" | "do_rescale" | "do_normalize" | "do_convert_rgb" => {
            (value.as_bool() == Some(true), "true")
        }
        "resample" => (value.as_u64() == Some(2), "2 (bilinear)"),
        "rescale_factor" => {
            let factor = value.as_f64().unwrap_or_default();
            ((factor * 255.0 - 1.0).abs() <= 1e-6, "1/255")
        }
        "image_mean" | "image_std" => (is_halves(value), "[0.5, 0.5, 0.5]"),
        _ => {
            return Err(format!(
                "is not a setting of the preparation. There are {}.",
                PreparationFields::NAMES.join(", ")
            ));
        }
    };
    if is_done {
        return Ok(());
    }
    Err(format!(
        "can only be {what}, as the model was trained: leave it out."
    ))
}

fn count(value: &Value) -> Result<u32, String> {
    let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
    let count = count.filter(|count| *count >= 1);
    count.ok_or_else(|| "must be a whole number from 1 on.".to_owned())
}

fn window_choice(value: &Value) -> Result<WindowChoice, String> {
    let choice = match value {
        Value::String(name) => match name.as_str() {
            "model" => Some(WindowChoice::Model),
            "header" => Some(WindowChoice::Header),
            name => {
                let mut presets = WindowPreset::ALL.into_iter();
                let preset = presets.find(|preset| preset.as_str() == name);
                preset.map(WindowChoice::Preset)
            }
        },
        Value::Object(_) => window(value).map(WindowChoice::One),
        Value::Array(windows) => match windows.as_slice() {
            [red, green, blue] => (|| {
                let windows = [window(red)?, window(green)?, window(blue)?];
                Some(WindowChoice::Three(windows))
            })(),
            _ => None,
        },
        _ => None,
    };
    choice.ok_or_else(|| {
        let names = WindowPreset::ALL.map(WindowPreset::as_str).join(", ");
        format!(
            "must be model, header, {names}, or {{\"center\": 40, \"width\": 80}} with a width \
             above 0, or three of these for red, green and blue."
        )
    })
}

fn window(value: &Value) -> Option<Window> {
    /// Far beyond any value that a file stores, so that no later sum overflows.
    const MOST: f64 = 1e12;
    let object = value.as_object()?;
    let is_known = |name: &String| matches!(name.as_str(), "center" | "width");
    if !object.keys().all(is_known) {
        return None;
    }
    let center = object.get("center")?.as_f64()?;
    let width = object.get("width")?.as_f64()?;
    let is_in_range = center.abs() <= MOST && width > 0.0 && width <= MOST;
    is_in_range.then_some(Window { center, width })
}

fn frame_choice(value: &Value) -> Result<FrameChoice, String> {
    let choice = match value {
        Value::String(name) if name == "even" => Some(FrameChoice::Even),
        Value::String(name) if name == "all" => Some(FrameChoice::All),
        Value::Array(numbers) if !numbers.is_empty() => {
            let numbers: Option<Arc<[u32]>> =
                numbers.iter().map(|number| count(number).ok()).collect();
            numbers.map(FrameChoice::Numbers)
        }
        _ => None,
    };
    choice.ok_or_else(|| {
        "must be even, all, or a list of frame numbers from 1, such as [1, 5, 9].".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<PreparationFields, PreparationError> {
        PreparationFields::read(value.as_object().expect("an object"))
    }

    #[test]
    fn every_setting_is_read() {
        let fields = read(json!({
            "fit": "pad", "do_pan_and_scan": true, "pan_and_scan_min_crop_size": 128,
            "pan_and_scan_max_num_crops": 6, "pan_and_scan_min_ratio_to_activate": 1,
            "window": "lung", "frames": [1, 7, 3],
        }));
        let preparation = fields.expect("all are known").resolve();
        let expected = Preparation {
            fit: ImageFit::Pad,
            pan_and_scan: Some(PanAndScan {
                min_crop_size: 128,
                max_num_crops: 6,
                min_ratio_to_activate: 1.0,
            }),
            window: WindowChoice::Preset(WindowPreset::Lung),
            ct_windows: CtWindows::default(),
            frames: FrameChoice::Numbers([1, 7, 3].into()),
        };
        assert_eq!(preparation, expected);
    }

    #[test]
    fn what_is_left_out_is_as_in_transformers() {
        let preparation = read(json!({"fit": null})).expect("nothing").resolve();
        assert_eq!(preparation, Preparation::default());
        assert_eq!(preparation.pan_and_scan, None);
        let switched = read(json!({"do_pan_and_scan": true})).expect("known");
        let expected = PanAndScan {
            min_crop_size: 256,
            max_num_crops: 4,
            min_ratio_to_activate: 1.2,
        };
        assert_eq!(switched.resolve().pan_and_scan, Some(expected));
    }

    #[test]
    fn the_nearest_place_decides_each_setting() {
        let request = read(json!({"pan_and_scan_max_num_crops": 2})).expect("known");
        let model = read(
            json!({"do_pan_and_scan": true, "pan_and_scan_max_num_crops": 3,
                                "fit": "pad"}),
        );
        let both = request.or(&model.expect("known")).resolve();
        assert_eq!(both.fit, ImageFit::Pad);
        assert_eq!(both.pan_and_scan.map(|crops| crops.max_num_crops), Some(2));
    }

    #[test]
    fn windows_have_names_and_numbers() {
        let window = |center, width| Window { center, width };
        for (value, expected) in [
            (json!("model"), WindowChoice::Model),
            (json!("header"), WindowChoice::Header),
            (
                json!({"center": 40, "width": 80.5}),
                WindowChoice::One(window(40.0, 80.5)),
            ),
            (
                json!([{"center": -600, "width": 1500}, {"center": 40, "width": 350},
                       {"center": 40, "width": 80}]),
                WindowChoice::Three([
                    window(-600.0, 1500.0),
                    window(40.0, 350.0),
                    window(40.0, 80.0),
                ]),
            ),
        ] {
            let fields = read(json!({"window": value})).expect("it is a window");
            assert_eq!(fields.window, Some(expected));
        }
        for (name, center, width) in [
            ("brain", 40.0, 80.0),
            ("subdural", 75.0, 215.0),
            ("stroke", 32.0, 8.0),
            ("lung", -600.0, 1500.0),
            ("mediastinum", 50.0, 350.0),
            ("bone", 400.0, 1800.0),
            ("abdomen", 40.0, 400.0),
            ("liver", 60.0, 150.0),
        ] {
            let fields = read(json!({"window": name})).expect("it has this name");
            let Some(WindowChoice::Preset(preset)) = fields.window else {
                panic!("{name} is a preset");
            };
            assert_eq!(preset.window(), window(center, width), "{name}");
        }
    }

    #[test]
    fn what_is_unknown_or_wrong_is_named() {
        for (name, value) in [
            ("do_pan_and_scam", json!(true)),
            ("fit", json!("crop")),
            ("fit", json!(1)),
            ("do_pan_and_scan", json!("yes")),
            ("pan_and_scan_min_crop_size", json!(0)),
            ("pan_and_scan_min_crop_size", json!(1.5)),
            ("pan_and_scan_max_num_crops", json!(-1)),
            ("pan_and_scan_max_num_crops", json!(1u64 << 32)),
            ("pan_and_scan_min_ratio_to_activate", json!(-0.1)),
            ("window", json!("spleen")),
            ("window", json!({"center": 1})),
            ("window", json!({"center": 1, "width": 0})),
            ("window", json!({"center": 1e13, "width": 1})),
            ("window", json!({"center": 1, "width": 1, "level": 1})),
            ("window", json!([{"center": 1, "width": 1}])),
            ("frames", json!([])),
            ("frames", json!([0])),
            ("frames", json!("first")),
            ("frames", json!(3)),
            ("size", json!(896)),
            ("size", json!({"shortest_edge": 896})),
            ("do_resize", json!(false)),
            ("resample", json!(3)),
            ("image_mean", json!([0.5, 0.5])),
            ("rescale_factor", json!(1)),
        ] {
            let error = read(json!({name: value})).expect_err(name);
            assert_eq!(error.name, name, "{value}");
        }
    }

    #[test]
    fn what_is_done_anyway_is_taken() {
        let fields = read(json!({
            "do_resize": true, "do_rescale": true, "do_normalize": true, "do_convert_rgb": true,
            "rescale_factor": 0.00392156862745098, "image_mean": [0.5, 0.5, 0.5],
            "image_std": 0.5, "resample": 2, "size": {"height": 896, "width": 896},
        }));
        let fields = fields.expect("all of it is done");
        assert_eq!(fields.check_size(896), Ok(()));
        assert_eq!(
            fields.check_size(448).map_err(|error| error.name),
            Err("size".to_owned())
        );
        assert_eq!(fields.resolve(), Preparation::default());
    }

    #[test]
    fn frames_are_chosen_evenly_by_number_or_all() {
        let even = |number| FrameChoice::Even.of(number).expect("there are enough");
        assert_eq!(even(1), [0]);
        assert_eq!(even(8), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(even(9), [0, 1, 2, 3, 5, 6, 7, 8]);
        assert_eq!(even(71), [0, 10, 20, 30, 40, 50, 60, 70]);
        assert_eq!(FrameChoice::All.of(10).map(|all| all.len()), Ok(10));
        let numbers = FrameChoice::Numbers([3, 1, 3].into());
        assert_eq!(numbers.of(3), Ok(vec![2, 0, 2]));
        assert_eq!(numbers.of(2), Err(3));
    }
}
