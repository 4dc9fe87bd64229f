// One import for all of the library.

@_exported import Adapters
@_exported import ArchitectureSearch
@_exported import CPUBackend
@_exported import Checkpoints
@_exported import Datasets
@_exported import ModelConfiguration
@_exported import OpenCLBackend
@_exported import SupernetSearch
@_exported import TensorBoard
@_exported import TensorCore
@_exported import Training
@_exported import Transformers
@_exported import VisionModels
