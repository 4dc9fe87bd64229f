import Datasets
import TensorCore
import Transformers

extension PreparedImages: ExampleSource {
    public var count: Int { source.count }
    public var name: String { source.name }
    public func exampleName(at index: Int) -> String { source.imageName(at: index) }
    public func label(at index: Int) -> Int { source.label(at: index) }
    public var classNames: [String]? { source.classNames }
    public var targetLoss: TargetLoss? {
        switch source.task {
        case .classes: nil
        case .labels: .sigmoid
        case .values: .squared
        }
    }
    public func targets(at index: Int) -> [Float] { source.targets(at: index) }
    public func start(_ batches: [[Int]]) { loader.start(batches) }
    public func start(_ batches: [[Int]], training draws: TrainingDraws) {
        start(batches, augmented: augmentation == .none ? nil : draws)
    }
    public func next() throws -> Batch? { try loader.next() }
}

extension Batch: ExampleBatch {}
