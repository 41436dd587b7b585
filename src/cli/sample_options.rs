//! How training samples are varied, normalised and resized.

use crate::bail_input;
use crate::train::config::DataSpec;
use anyhow::Result;
use clap::Args;

const TRAINING: &str = "Training";

#[derive(Args)]
pub struct SampleOptions {
    /// Shift training images by up to this many pixels [default: 0].
    #[arg(long, value_name = "PIXELS", help_heading = TRAINING)]
    crop: Option<u32>,
    /// Mirror half of the training images [default: none].
    #[arg(long, help_heading = TRAINING)]
    flip: bool,
    /// Roll training images by up to this many pixels: what leaves on one side comes back on the other [default: 0].
    #[arg(long, value_name = "PIXELS", help_heading = TRAINING)]
    roll: Option<u32>,
    /// Set this share of the training samples' values to 0 [default: 0].
    #[arg(long, value_name = "SHARE", help_heading = TRAINING)]
    drop: Option<f32>,
    /// Replace training images by a random part, of 8 to 100 % of the area, enlarged to their size [default: none].
    ///
    /// The part is 3/4 to 4/3 as wide as high and is enlarged bilinearly, as by torchvision's RandomResizedCrop.
    #[arg(long, help_heading = TRAINING)]
    resized_crop: bool,
    /// Apply AutoAugment's policy for CIFAR-10 to training images [default: none].
    ///
    /// As torchvision does it: one of 25 sub-policies for each image, after crop and flip; black comes in at the edges.
    #[arg(long, help_heading = TRAINING)]
    auto_augment: bool,
    /// Set a square of this many pixels a side, anywhere in a training image, to black [default: 0].
    #[arg(long, value_name = "PIXELS", help_heading = TRAINING)]
    cutout: Option<u32>,
    /// Mix training samples in pairs, with shares from the Beta distribution of this parameter, 0 to 1 [default: 0].
    ///
    /// Mixup: the loss is that of both labels by their shares. Training accuracy counts the label of the larger share.
    #[arg(long, value_name = "ALPHA", help_heading = TRAINING)]
    mixup: Option<f32>,
    /// Mean of each channel, subtracted from it; images have values from 0 to 1 [default: that of the data set].
    #[arg(long, value_name = "M,M,…", value_delimiter = ',', allow_hyphen_values = true, help_heading = TRAINING)]
    mean: Option<Vec<f32>>,
    /// Standard deviation of each channel, by which it is then divided [default: that of the data set].
    #[arg(long, value_name = "S,S,…", value_delimiter = ',', help_heading = TRAINING)]
    std: Option<Vec<f32>>,
    /// Make pictures of image-folder and tiny-imagenet squares of this side [default: their own size, which must be one].
    ///
    /// The shorter side is resized to it (bilinear), and the middle is cut out.
    #[arg(long, value_name = "PIXELS", help_heading = TRAINING)]
    image_size: Option<u32>,
}

impl SampleOptions {
    /// The size of pictures, if these samples are pictures.
    ///
    /// # Errors
    /// If a size is given and they are not.
    pub fn image_size(&self, spec: &DataSpec) -> Result<Option<u32>> {
        let is_pictures = spec.source.is_pictures();
        if let Some(side) = self.image_size.filter(|_| !is_pictures) {
            bail_input!(
                "--image-size {side} is for image-folder and tiny-imagenet, but the data set is {}",
                spec.source
            );
        }
        Ok(self.image_size.or(spec.image_size).filter(|_| is_pictures))
    }

    /// Changes what is given.
    pub fn change(&self, data: &mut DataSpec) {
        let augmentation = &mut data.augmentation;
        set(&mut augmentation.crop_padding, &self.crop);
        augmentation.flip |= self.flip;
        set(&mut augmentation.roll, &self.roll);
        set(&mut augmentation.drop, &self.drop);
        augmentation.resized_crop |= self.resized_crop;
        augmentation.auto_augment |= self.auto_augment;
        set(&mut augmentation.cutout, &self.cutout);
        set(&mut augmentation.mixup, &self.mixup);
        data.mean = self.mean.clone().or(data.mean.take());
        data.std = self.std.clone().or(data.std.take());
    }
}

/// Replaces a value by the one that was given.
pub fn set<V: Clone>(target: &mut V, given: &Option<V>) {
    if let Some(value) = given {
        *target = value.clone();
    }
}
