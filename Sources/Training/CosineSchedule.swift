import Foundation

/// The learning rate by epoch: a linear warm-up, then a cosine down to a floor, as timm's `CosineLRScheduler` steps it.
///
/// The scheduler is stepped *after* each epoch with that epoch's index, so epochs 0 and 1 both run at the warm-up rate and
/// the cosine is one epoch late. That is how the original trains, so it is kept.
/// Source: ViT-Slim/GLoRA/supernet.py; timm 0.6.5, `scheduler/cosine_lr.py`.
public struct CosineSchedule: Sendable {
    /// The rate at the end of the warm-up.
    public var learningRate: Double
    /// Epochs in all (timm's `t_initial`).
    public var epochs: Int
    /// Epochs of warm-up; 0 for none.
    public var warmupEpochs: Int
    /// The rate of the first epoch, when there is a warm-up.
    public var warmupLearningRate: Double = 1e-6
    /// The rate that the cosine ends at.
    public var minimumLearningRate: Double = 1e-5

    /// A schedule with the original's warm-up rate and floor.
    public init(learningRate: Double, epochs: Int, warmupEpochs: Int) {
        (self.learningRate, self.epochs, self.warmupEpochs) = (learningRate, epochs, warmupEpochs)
    }

    /// The rate that every step of `epoch` (from 0) uses.
    public func learningRate(inEpoch epoch: Int) -> Double {
        guard epoch > 0 else { return warmupEpochs > 0 ? warmupLearningRate : learningRate }
        let t = epoch - 1
        if t < warmupEpochs {
            return warmupLearningRate
                + Double(t) * (learningRate - warmupLearningRate) / Double(warmupEpochs)
        }
        guard t < epochs else { return minimumLearningRate }
        return minimumLearningRate
            + 0.5 * (learningRate - minimumLearningRate) * (1 + cos(.pi * Double(t) / Double(epochs)))
    }
}
