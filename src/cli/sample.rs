//! `driftglass sample`: paints pictures, and shows them emerging.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::value_parser;
use ndarray::Axis;

use super::progress::Progress;
use super::screen::Screen;
use super::wall::{BoardArgs, LitStage, Wall};
use super::{EngineArgs, GAP_COLOUR, GAP_PX, LibraryArgs, read_picture, seed};
use crate::diffusion::sampler::{SamplerKind, Step, VarianceKind};
use crate::diffusion::timesteps::Spacing;
use crate::display::scene::Scene;
use crate::display::stage::Kind;
use crate::display::{correction, mount};
use crate::error::Result;
use crate::files::{create_folder, folder_of, write_whole};
use crate::model::Precision;
use crate::model::library::DEFAULT_MODEL;
use crate::picture::Picture;
use crate::pipeline::recipe::{Init, Morph};
use crate::pipeline::{Changes, Painter, Recipe, picture_sha256};

/// The seed when none is asked for, so that the first picture is everybody's.
const DEFAULT_SEED: u64 = 5;

/// Small pictures are written at a whole multiple of their size, at least this wide.
const COMFORTABLE_PX: usize = 256;

/// An animation's frame, and its last one, on which the eye rests.
const FRAME: Duration = Duration::from_millis(80);
const LAST_FRAME: Duration = Duration::from_secs(3);

/// How far `--init` is noised when nothing is said.
const DEFAULT_STRENGTH: f64 = 0.6;

/// A sheet's widest row, and the most pictures on one.
const SHEET_COLUMNS: usize = 8;
const MAX_SHEET: u64 = 1024;

/// `driftglass sample`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A package's name, or the path of its folder [default: scenes-32]
    #[arg(long)]
    model: Option<String>,

    #[command(flatten)]
    library: LibraryArgs,

    /// The seed, a number or `random`; the same seed paints the same picture [default: 5]
    #[arg(long, value_parser = seed)]
    seed: Option<u64>,

    /// Kept steps: fewer are faster, more are finer [default: the model's own]
    #[arg(long, value_name = "N")]
    steps: Option<usize>,

    /// The reverse update: ddpm, ddim or dpmpp-2m [default: the model's own]
    #[arg(long)]
    sampler: Option<SamplerKind>,

    /// Which steps are kept: linspace, leading, trailing, ddim, sections:10,10,30, explicit:999,0
    /// [default: the model's own]
    #[arg(long)]
    spacing: Option<Spacing>,

    /// The variance of ddpm: fixed-small, fixed-large, learned-range or analytic
    /// [default: the model's own; fixed-small for steps that it has no analytic variance for]
    #[arg(long)]
    variance: Option<VarianceKind>,

    /// What to paint, for a model with classes: a name, an index, or `any` [default: any]
    #[arg(long)]
    class: Option<String>,

    /// How far the class is exaggerated, 0 to 20; 1 is not at all. Any other weight asks the
    /// network twice at every step, with the class and without, and takes twice the time
    /// [default: the model's own]
    #[arg(long, value_name = "W", allow_negative_numbers = true)]
    guidance: Option<f64>,

    /// Ask the network at the first step too, where it sees nothing but noise, though the model has
    /// a prior to draw from
    #[arg(long)]
    no_prior: bool,

    /// Which of the model's files: fp32, fp16 or int8 [default: the model's own]
    #[arg(long)]
    precision: Option<Precision>,

    #[command(flatten)]
    engine: EngineArgs,

    /// How many pictures, with consecutive seeds
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u64).range(1..))]
    count: u64,

    /// Where to write: a .png file, or a folder
    #[arg(long, value_name = "PATH", default_value = "pictures")]
    out: PathBuf,

    /// Enlarge the picture file this many times, 1 to 64, without smoothing
    /// [default: until it is 256 pixels wide]
    #[arg(long, value_name = "N", value_parser = value_parser!(u8).range(1..=64))]
    scale: Option<u8>,

    /// Also write the denoising as an animated PNG, beside the picture
    #[arg(long)]
    apng: bool,

    /// Also write all pictures as one sheet
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,

    /// What to show while it paints: the predicted picture, the noisy one, or nothing
    #[arg(long, value_enum, default_value_t = Preview::X0)]
    preview: Preview,

    /// Also show it on this panel, by name or by its file's path: the steps as --preview says,
    /// and the finished picture
    #[arg(long, value_name = "PANEL")]
    display: Option<String>,

    #[command(flatten)]
    boards: BoardArgs,

    /// Print nothing but the paths of the files
    #[arg(long, short)]
    quiet: bool,

    /// Start from this picture (PNG), noised, instead of from pure noise
    #[arg(long, value_name = "FILE", conflicts_with = "morph")]
    init: Option<PathBuf>,

    /// How far --init is noised: 1 forgets it, 0.2 barely touches it [default: 0.6]
    #[arg(
        long,
        value_name = "S",
        requires = "init",
        allow_negative_numbers = true
    )]
    strength: Option<f64>,

    /// Paint again what a picture painted by driftglass says of itself; other options change it
    #[arg(long, value_name = "FILE")]
    like: Option<PathBuf>,

    /// Walk from one seed's picture to another's, --frames pictures long; the class is the first
    /// one's
    #[arg(long, value_names = ["SEED_A", "SEED_B"], num_args = 2, value_parser = seed,
          conflicts_with_all = ["seed", "count"])]
    morph: Option<Vec<u64>>,

    /// Pictures of a --morph, 2 to 1000, both ends included
    #[arg(long, value_name = "N", default_value_t = 8, requires = "morph",
          value_parser = value_parser!(u64).range(2..=1000))]
    frames: u64,
}

/// What is shown while a picture is painted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Preview {
    /// The picture that the network predicts at this step
    X0,
    /// The noisy picture itself
    Xt,
    /// Nothing
    None,
}

pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let order = Order::new(args)?;
    let package = args.library.library()?.open(&order.model)?;
    let mut painter = Painter::open(package, order.precision, args.engine.threads)?;
    let panel = panel(args)?;
    let terminal_is_taken = panel.as_ref().is_some_and(|panel| panel.is_terminal);
    let mut screen = if args.quiet || terminal_is_taken {
        Screen::silent()
    } else {
        Screen::new()
    };
    let mut kept = Vec::new();
    for index in 0..order.count {
        let recipe = order.recipe(&painter, index)?;
        let path = order.target.path(&recipe, index);
        let (picture, frames) = paint(
            args,
            &mut painter,
            &recipe,
            &order,
            &mut screen,
            panel.as_ref(),
        )?;
        let picture = scaled(&picture, args);
        write_whole(&path, &picture.encode_png(&recipe.to_texts()))?;
        screen.say(&path)?;
        if args.apng {
            let path = path.with_extension("apng");
            let frames: Vec<Picture> = frames.iter().map(|frame| scaled(frame, args)).collect();
            let bytes = Picture::encode_apng(&frames, FRAME, LAST_FRAME, &recipe.to_texts());
            write_whole(&path, &bytes)?;
            screen.say(&path)?;
        }
        if args.sheet.is_some() || args.morph.is_some() {
            kept.push(picture);
        }
    }
    let texts = order.recipe(&painter, 0)?.to_texts();
    if let Some(path) = &args.sheet {
        let sheet = Picture::contact_sheet(&kept, SHEET_COLUMNS, GAP_PX, GAP_COLOUR);
        write_whole(path, &sheet.encode_png(&texts))?;
        screen.say(path)?;
    }
    if args.morph.is_some() {
        let path = order.target.folder().join("morph.apng");
        write_whole(
            &path,
            &Picture::encode_apng(&kept, 2 * FRAME, 2 * FRAME, &texts),
        )?;
        screen.say(&path)?;
    }
    if let Some(panel) = panel {
        panel.finish()?;
        panel.close()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The panel of `--display`, on its own thread.
fn panel(args: &Args) -> Result<Option<LitStage>> {
    let Some(name) = args.display.as_deref() else {
        return Ok(None);
    };
    let wall = Wall::find(
        &args.boards.library()?,
        args.boards.board.as_deref(),
        Some(name),
    )?;
    let stage = wall.stage(mount::Facts::default(), correction::Facts::default())?;
    Ok(Some(stage))
}

fn scene(picture: Picture) -> Scene {
    Scene::Picture {
        picture,
        progress: None,
        captions: Vec::new(),
    }
}

/// What the arguments ask for, checked before the first picture is painted.
struct Order<'a> {
    args: &'a Args,
    model: String,
    precision: Option<Precision>,
    like: Option<Recipe>,
    init: Option<Picture>,
    count: u64,
    target: Target,
}

impl<'a> Order<'a> {
    fn new(args: &'a Args) -> anyhow::Result<Self> {
        let like = match &args.like {
            None => None,
            Some(path) => Some(Recipe::from_png(
                &path.display().to_string(),
                &read_picture(path)?,
            )?),
        };
        let init = match &args.init {
            None => None,
            Some(path) => Some(Picture::decode_png(path.display(), &read_picture(path)?)?),
        };
        let count = if args.morph.is_some() {
            args.frames
        } else {
            args.count
        };
        let target = Target::new(&args.out, count)?;
        if let Some(sheet) = &args.sheet {
            let place = sheet.display();
            ensure!(
                *sheet != args.out,
                "{place}: expected another file than --out, found the same"
            );
            ensure!(
                count <= MAX_SHEET,
                "{place}: expected at most {MAX_SHEET} pictures, found {count}"
            );
            create_folder(folder_of(sheet))?;
        }
        let like_model = like.as_ref().map(|recipe| recipe.model.clone());
        let model = args
            .model
            .clone()
            .or(like_model)
            .unwrap_or_else(|| DEFAULT_MODEL.into());
        let precision = args
            .precision
            .or(like.as_ref().map(|recipe| recipe.precision));
        Ok(Self {
            args,
            model,
            precision,
            like,
            init,
            count,
            target,
        })
    }

    /// The recipe of picture `index`: the model's own, or that of `--like`, with what the other
    /// arguments change.
    fn recipe(&self, painter: &Painter, index: u64) -> anyhow::Result<Recipe> {
        let args = self.args;
        let like_seed = self.like.as_ref().map(|recipe| recipe.seed);
        let first = args.seed.or(like_seed).unwrap_or(DEFAULT_SEED);
        let (seed, morph) = match args.morph.as_deref() {
            Some(&[from, to]) => {
                let position = index as f64 / (self.count - 1) as f64;
                (from, Some(Morph { seed: to, position }))
            }
            _ => (first.wrapping_add(index), None),
        };
        let own = painter.recipe(seed);
        let said = match &self.like {
            None => &own,
            Some(like) => {
                let place = args.like.as_deref().map(|path| path.display().to_string());
                painter.check(like).context(place.unwrap_or_default())?;
                like
            }
        };
        let changes = Changes {
            steps: args.steps,
            sampler: args.sampler,
            spacing: args.spacing.clone(),
            variance: args.variance,
            guidance: args.guidance,
            no_prior: args.no_prior,
        };
        let mut recipe = Recipe {
            seed,
            morph: morph.or(said.morph),
            ..painter.changed(said, &changes)
        };
        match args.class.as_deref() {
            None => {}
            Some("any") => recipe.class = own.class,
            Some(class) => {
                let index = painter.manifest().class_index(class)?;
                recipe.class = Some(painter.manifest().class_name(index).to_owned());
            }
        }
        if let Some(picture) = &self.init {
            let before = recipe.init.as_ref().map(|init| init.strength);
            let strength = args.strength.or(before).unwrap_or(DEFAULT_STRENGTH);
            recipe.init = Some(Init {
                sha256: picture_sha256(picture),
                strength,
            });
        }
        Ok(recipe)
    }
}

/// Paints one recipe; also the frames of its emergence, where they are asked for.
fn paint(
    args: &Args,
    painter: &mut Painter,
    recipe: &Recipe,
    order: &Order,
    screen: &mut Screen,
    panel: Option<&LitStage>,
) -> Result<(Picture, Vec<Picture>)> {
    let mut frames = Vec::new();
    let start = Instant::now();
    let mut finished = 0;
    let picture = painter.paint(recipe, order.init.as_ref(), &mut |step: &Step| {
        finished += 1;
        let elapsed = start.elapsed();
        let progress = Progress {
            index: finished,
            count: step.count - (step.index + 1 - finished),
            elapsed,
            per_step: elapsed / finished as u32,
        };
        let preview = args.preview != Preview::None && screen.shows(&progress);
        let stage = panel.map(|panel| &panel.stage);
        let stage = stage.filter(|stage| args.preview != Preview::None && stage.shows_steps());
        let frame = (preview || args.apng || stage.is_some()).then(|| {
            let tensor = if args.preview == Preview::Xt {
                step.x
            } else {
                step.x0
            };
            Picture::from_tensor(tensor.index_axis(Axis(0), 0))
        });
        screen.show(frame.as_ref().filter(|_| preview), &progress);
        if let (Some(stage), Some(frame)) = (stage, &frame) {
            stage.show(Kind::Step, scene(frame.clone()));
        }
        frames.extend(frame.filter(|_| args.apng));
        ControlFlow::Continue(())
    })?;
    if let Some(panel) = panel {
        panel.stage.show(Kind::Finished, scene(picture.clone()));
    }
    if args.apng {
        frames.push(picture.clone());
    }
    Ok((picture, frames))
}

fn scaled(picture: &Picture, args: &Args) -> Picture {
    let comfortable = COMFORTABLE_PX.div_ceil(picture.width_px());
    picture.enlarged(args.scale.map_or(comfortable, usize::from))
}

/// Where the files go.
enum Target {
    File(PathBuf),
    Folder(PathBuf),
}

impl Target {
    /// The folder is made now: minutes of painting must not end at a folder that cannot be.
    fn new(out: &Path, pictures: u64) -> anyhow::Result<Self> {
        let place = out.display();
        if out.is_dir() || out.extension().is_none() {
            create_folder(out)?;
            return Ok(Self::Folder(out.to_owned()));
        }
        let is_png = out
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("png"));
        ensure!(
            is_png,
            "{place}: expected a .png file or a folder, found another ending"
        );
        ensure!(
            pictures == 1,
            "{place}: expected a folder for {pictures} pictures, found a file"
        );
        create_folder(folder_of(out))?;
        Ok(Self::File(out.to_owned()))
    }

    fn path(&self, recipe: &Recipe, index: u64) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Folder(folder) => {
                let seed = match &recipe.morph {
                    None => recipe.seed.to_string(),
                    Some(morph) => format!("{}-to-{}-{index:03}", recipe.seed, morph.seed),
                };
                folder.join(format!("{}-{seed}.png", recipe.model))
            }
        }
    }

    fn folder(&self) -> &Path {
        match self {
            Self::File(path) => folder_of(path),
            Self::Folder(folder) => folder,
        }
    }
}
