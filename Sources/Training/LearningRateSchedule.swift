import Adapters
import Foundation

/// The learning rate by step. Over T steps of which the first W warm up, from the rate w to the full rate η, then down to m:
///
///     t < W        w + (η − w) t / W
///     cosine       m + (η − m) (1 + cos π p) / 2        p = (t − W) / (T − W)
///     linear       m + (η − m) (1 − p)
///     constant     η
///     one-cycle    η / 25 up to η by a cosine over 30 % of the steps, then down to η / 25 / 10⁴ by another; no warm-up
///     original     `CosineSchedule`, by epoch
///
/// Sources: timm's `CosineLRScheduler` with `warmup_prefix` and without `t_in_epochs`; transformers'
/// `get_linear_schedule_with_warmup`; `torch.optim.lr_scheduler.OneCycleLR` with its defaults.
public struct LearningRateSchedule: Sendable {
    /// How the rate goes.
    public enum Kind: String, SettingChoice, Codable, Hashable, Sendable {
        /// The original's cosine by epoch.
        case original
        /// Half a cosine, by step.
        case cosine
        /// A straight line, by step.
        case linear
        /// The same rate behind the warm-up.
        case constant
        /// Up and down once.
        case oneCycle = "one-cycle"
    }

    /// How the rate goes.
    public var kind: Kind
    /// η.
    public var learningRate: Double
    /// T.
    public var steps: Int
    /// W.
    public var warmupSteps: Int
    /// w.
    public var warmupLearningRate: Double
    /// m.
    public var minimumLearningRate: Double
    /// The original's, whose unit is the epoch.
    public var byEpoch: CosineSchedule
    /// Steps in an epoch.
    public var stepsPerEpoch: Int

    /// The schedule of a run with so many steps in an epoch.
    public init(_ options: TrainingOptions, stepsPerEpoch: Int) {
        kind = options.additions.schedule ?? .original
        learningRate = options.learningRate
        steps = options.epochs * stepsPerEpoch
        warmupSteps = min(options.additions.warmupSteps ?? options.warmupEpochs * stepsPerEpoch, steps)
        warmupLearningRate = options.warmupLearningRate
        minimumLearningRate = options.minimumLearningRate
        byEpoch = options.cosineSchedule
        self.stepsPerEpoch = max(stepsPerEpoch, 1)
    }

    /// The rate of a step, from 0.
    public func learningRate(at step: Int) -> Double {
        let eta = learningRate
        switch kind {
        case .original: return byEpoch.learningRate(inEpoch: step / stepsPerEpoch)
        case .oneCycle:
            // The last steps of both phases, as PyTorch counts them.
            let (peak, last) = (0.3 * Double(steps) - 1, Double(steps) - 1)
            let t = Double(step)
            let low = eta / 25
            if t <= peak { return annealed(from: low, to: eta, peak > 0 ? t / peak : 1) }
            return annealed(from: eta, to: low / 1e4, last > peak ? (t - peak) / (last - peak) : 1)
        case .cosine, .linear, .constant:
            if step < warmupSteps {
                return warmupLearningRate
                    + (eta - warmupLearningRate) * Double(step) / Double(warmupSteps)
            }
            let p = Double(step - warmupSteps) / Double(max(steps - warmupSteps, 1))
            return switch kind {
            case .cosine: annealed(from: eta, to: minimumLearningRate, p)
            case .linear: eta + (minimumLearningRate - eta) * p
            default: eta
            }
        }
    }

    /// Half a cosine.
    private func annealed(from start: Double, to end: Double, _ p: Double) -> Double {
        end + (start - end) * (1 + cos(.pi * p)) / 2
    }
}
