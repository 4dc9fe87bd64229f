// The OpenCL sources as bytes in the binary, so that a moved binary still finds them.
//
// `#embed` takes 0.3 s for 100 KB of kernels where SwiftPM's `.embedInCode` takes 37 s. Clang writes embedded files
// into its dependency file, so SwiftPM rebuilds this file when a kernel changes.

#include "CKernels.h"

#pragma clang diagnostic ignored "-Wc23-extensions"

static const unsigned char Prelude[] = {
#embed "../../Kernels/Prelude.cl"
};
static const unsigned char Reductions[] = {
#embed "../../Kernels/Reductions.cl"
};
static const unsigned char Matrices[] = {
#embed "../../Kernels/Matrices.cl"
};
static const unsigned char Elementwise[] = {
#embed "../../Kernels/Elementwise.cl"
};
static const unsigned char Gelu[] = {
#embed "../../Kernels/Gelu.cl"
};
static const unsigned char Activations[] = {
#embed "../../Kernels/Activations.cl"
};
static const unsigned char LayerNorm[] = {
#embed "../../Kernels/LayerNorm.cl"
};
static const unsigned char Rotation[] = {
#embed "../../Kernels/Rotation.cl"
};
static const unsigned char Attention[] = {
#embed "../../Kernels/Attention.cl"
};
static const unsigned char Tokens[] = {
#embed "../../Kernels/Tokens.cl"
};
static const unsigned char GLoRA[] = {
#embed "../../Kernels/GLoRA.cl"
};
static const unsigned char Epilogue[] = {
#embed "../../Kernels/Epilogue.cl"
};
static const unsigned char Panels[] = {
#embed "../../Kernels/Panels.cl"
};
static const unsigned char EnginePanels[] = {
#embed "../../Kernels/EnginePanels.cl"
};
static const unsigned char Engines[] = {
#embed "../../Kernels/Engines.cl"
};
static const unsigned char EngineAttention[] = {
#embed "../../Kernels/EngineAttention.cl"
};
static const unsigned char GPUEngines[] = {
#embed "../../Kernels/GPUEngines.cl"
};
static const unsigned char Loss[] = {
#embed "../../Kernels/Loss.cl"
};
static const unsigned char Optimizers[] = {
#embed "../../Kernels/Optimizers.cl"
};
static const unsigned char Adapters[] = {
#embed "../../Kernels/Adapters.cl"
};

#define ENTRY(name) {#name ".cl", name, sizeof name},
// In the order of compilation.
static const CKernelFile files[] = {
    ENTRY(Prelude) ENTRY(Reductions) ENTRY(Matrices) ENTRY(Elementwise) ENTRY(Gelu) ENTRY(Activations) ENTRY(GLoRA)
    ENTRY(Epilogue) ENTRY(Panels) ENTRY(EnginePanels) ENTRY(Engines) ENTRY(GPUEngines) ENTRY(LayerNorm) ENTRY(Rotation) ENTRY(Attention)
    ENTRY(EngineAttention) ENTRY(Tokens)
    ENTRY(Loss) ENTRY(Optimizers) ENTRY(Adapters)
};

const CKernelFile *ckernels_files(void) { return files; }

size_t ckernels_file_count(void) { return sizeof files / sizeof files[0]; }
