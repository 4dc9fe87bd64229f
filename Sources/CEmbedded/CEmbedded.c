// The table of embedded files. #embed is C23, which Clang 19 and later offer in every mode and warn about.
#pragma clang diagnostic ignored "-Wc23-extensions"

#include "CEmbedded.h"

static const uint8_t clip_base[] = {
#embed "Golden/clip/base.safetensors"
};
static const uint8_t clip_fixed_mixed[] = {
#embed "Golden/clip/fixed_mixed.safetensors"
};
static const uint8_t dinov2_reg_base[] = {
#embed "Golden/dinov2_reg/base.safetensors"
};
static const uint8_t dinov2_reg_fixed_mixed[] = {
#embed "Golden/dinov2_reg/fixed_mixed.safetensors"
};
static const uint8_t dinov3_base[] = {
#embed "Golden/dinov3/base.safetensors"
};
static const uint8_t dinov3_fixed_mixed[] = {
#embed "Golden/dinov3/fixed_mixed.safetensors"
};
static const uint8_t eva02_base[] = {
#embed "Golden/eva02/base.safetensors"
};
static const uint8_t eva02_fixed_mixed[] = {
#embed "Golden/eva02/fixed_mixed.safetensors"
};
static const uint8_t ops_geglu_tanh[] = {
#embed "Golden/ops/geglu_tanh.safetensors"
};
static const uint8_t ops_gelu_tanh[] = {
#embed "Golden/ops/gelu_tanh.safetensors"
};
static const uint8_t ops_rmsnorm[] = {
#embed "Golden/ops/rmsnorm.safetensors"
};
static const uint8_t ops_swiglu[] = {
#embed "Golden/ops/swiglu.safetensors"
};
static const uint8_t rope_dinov3_2d[] = {
#embed "Golden/rope/dinov3_2d.safetensors"
};
static const uint8_t rope_eva02_2d[] = {
#embed "Golden/rope/eva02_2d.safetensors"
};
static const uint8_t siglip_base[] = {
#embed "Golden/siglip/base.safetensors"
};
static const uint8_t siglip_fixed_mixed[] = {
#embed "Golden/siglip/fixed_mixed.safetensors"
};
static const uint8_t glora_layer_000_pw_i12o20r2_n1_b[] = {
#embed "Golden/glora_layer/000_pw_i12o20r2_n1_b.safetensors"
};
static const uint8_t glora_layer_002_pw_i12o20r2_n7_nb[] = {
#embed "Golden/glora_layer/002_pw_i12o20r2_n7_nb.safetensors"
};
static const uint8_t glora_layer_022_pw_i33o17r8_n1_b[] = {
#embed "Golden/glora_layer/022_pw_i33o17r8_n1_b.safetensors"
};
static const uint8_t glora_layer_034_all_none_i12o20r2_n1_b[] = {
#embed "Golden/glora_layer/034_all-none_i12o20r2_n1_b.safetensors"
};
static const uint8_t glora_layer_035_all_lora_i12o20r2_n7_b[] = {
#embed "Golden/glora_layer/035_all-lora_i12o20r2_n7_b.safetensors"
};
static const uint8_t glora_layer_037_all_vector_i12o20r2_n1_nb[] = {
#embed "Golden/glora_layer/037_all-vector_i12o20r2_n1_nb.safetensors"
};
static const uint8_t glora_layer_038_all_constant_i12o20r2_n7_b[] = {
#embed "Golden/glora_layer/038_all-constant_i12o20r2_n7_b.safetensors"
};
static const uint8_t glora_layer_049_edge_i5o1r3_n3_b[] = {
#embed "Golden/glora_layer/049_edge_i5o1r3_n3_b.safetensors"
};
static const uint8_t glora_layer_050_edge_i5o1r3_n3_nb[] = {
#embed "Golden/glora_layer/050_edge_i5o1r3_n3_nb.safetensors"
};
static const uint8_t glora_layer_051_edge_i1o6r2_n3_b[] = {
#embed "Golden/glora_layer/051_edge_i1o6r2_n3_b.safetensors"
};
static const uint8_t glora_layer_052_edge_i1o6r2_n3_nb[] = {
#embed "Golden/glora_layer/052_edge_i1o6r2_n3_nb.safetensors"
};
static const uint8_t glora_layer_053_init_i12o20r2_n7_b[] = {
#embed "Golden/glora_layer/053_init_i12o20r2_n7_b.safetensors"
};
static const uint8_t peft_adaptformer_ln_learnable[] = {
#embed "Golden/peft/adaptformer_ln_learnable.safetensors"
};
static const uint8_t peft_fact_tk[] = {
#embed "Golden/peft/fact_tk.safetensors"
};
static const uint8_t peft_lora_qv[] = {
#embed "Golden/peft/lora_qv.safetensors"
};
static const uint8_t peft_noah_subnet[] = {
#embed "Golden/peft/noah_subnet.safetensors"
};
static const uint8_t peft_ssf[] = {
#embed "Golden/peft/ssf.safetensors"
};
static const uint8_t search_param_count_mixed[] = {
#embed "Golden/search/param_count_mixed.json"
};
static const uint8_t search_trace[] = {
#embed "Golden/search/trace.json"
};
static const uint8_t vit_base[] = {
#embed "Golden/vit/base.safetensors"
};
static const uint8_t vit_fixed_mixed[] = {
#embed "Golden/vit/fixed_mixed.safetensors"
};
static const uint8_t vit_lr_schedule[] = {
#embed "Golden/vit/lr_schedule.json"
};
static const uint8_t vit_traj_random_wellcond_zerograd_in_place[] = {
#embed "Golden/vit/traj_random_wellcond_zerograd_in_place.safetensors"
};
static const uint8_t vit_traj_random_wellcond_zerograd_to_none[] = {
#embed "Golden/vit/traj_random_wellcond_zerograd_to_none.safetensors"
};
// Made by `glora pretrain --device cpu`, whose defaults are the recipe.
static const uint8_t model_vit_shapes[] = {
#embed "Model/vit-shapes.safetensors"
};

#define FILE_OF(name, bytes) {name, bytes, sizeof(bytes)}

static const EmbeddedFile files[] = {
    FILE_OF("Model/vit-shapes.safetensors", model_vit_shapes),
    FILE_OF("Golden/clip/base.safetensors", clip_base),
    FILE_OF("Golden/clip/fixed_mixed.safetensors", clip_fixed_mixed),
    FILE_OF("Golden/dinov2_reg/base.safetensors", dinov2_reg_base),
    FILE_OF("Golden/dinov2_reg/fixed_mixed.safetensors", dinov2_reg_fixed_mixed),
    FILE_OF("Golden/dinov3/base.safetensors", dinov3_base),
    FILE_OF("Golden/dinov3/fixed_mixed.safetensors", dinov3_fixed_mixed),
    FILE_OF("Golden/eva02/base.safetensors", eva02_base),
    FILE_OF("Golden/eva02/fixed_mixed.safetensors", eva02_fixed_mixed),
    FILE_OF("Golden/ops/geglu_tanh.safetensors", ops_geglu_tanh),
    FILE_OF("Golden/ops/gelu_tanh.safetensors", ops_gelu_tanh),
    FILE_OF("Golden/ops/rmsnorm.safetensors", ops_rmsnorm),
    FILE_OF("Golden/ops/swiglu.safetensors", ops_swiglu),
    FILE_OF("Golden/rope/dinov3_2d.safetensors", rope_dinov3_2d),
    FILE_OF("Golden/rope/eva02_2d.safetensors", rope_eva02_2d),
    FILE_OF("Golden/siglip/base.safetensors", siglip_base),
    FILE_OF("Golden/siglip/fixed_mixed.safetensors", siglip_fixed_mixed),
    FILE_OF("Golden/glora_layer/000_pw_i12o20r2_n1_b.safetensors", glora_layer_000_pw_i12o20r2_n1_b),
    FILE_OF("Golden/glora_layer/002_pw_i12o20r2_n7_nb.safetensors", glora_layer_002_pw_i12o20r2_n7_nb),
    FILE_OF("Golden/glora_layer/022_pw_i33o17r8_n1_b.safetensors", glora_layer_022_pw_i33o17r8_n1_b),
    FILE_OF("Golden/glora_layer/034_all-none_i12o20r2_n1_b.safetensors", glora_layer_034_all_none_i12o20r2_n1_b),
    FILE_OF("Golden/glora_layer/035_all-lora_i12o20r2_n7_b.safetensors", glora_layer_035_all_lora_i12o20r2_n7_b),
    FILE_OF("Golden/glora_layer/037_all-vector_i12o20r2_n1_nb.safetensors", glora_layer_037_all_vector_i12o20r2_n1_nb),
    FILE_OF("Golden/glora_layer/038_all-constant_i12o20r2_n7_b.safetensors", glora_layer_038_all_constant_i12o20r2_n7_b),
    FILE_OF("Golden/glora_layer/049_edge_i5o1r3_n3_b.safetensors", glora_layer_049_edge_i5o1r3_n3_b),
    FILE_OF("Golden/glora_layer/050_edge_i5o1r3_n3_nb.safetensors", glora_layer_050_edge_i5o1r3_n3_nb),
    FILE_OF("Golden/glora_layer/051_edge_i1o6r2_n3_b.safetensors", glora_layer_051_edge_i1o6r2_n3_b),
    FILE_OF("Golden/glora_layer/052_edge_i1o6r2_n3_nb.safetensors", glora_layer_052_edge_i1o6r2_n3_nb),
    FILE_OF("Golden/glora_layer/053_init_i12o20r2_n7_b.safetensors", glora_layer_053_init_i12o20r2_n7_b),
    FILE_OF("Golden/peft/adaptformer_ln_learnable.safetensors", peft_adaptformer_ln_learnable),
    FILE_OF("Golden/peft/fact_tk.safetensors", peft_fact_tk),
    FILE_OF("Golden/peft/lora_qv.safetensors", peft_lora_qv),
    FILE_OF("Golden/peft/noah_subnet.safetensors", peft_noah_subnet),
    FILE_OF("Golden/peft/ssf.safetensors", peft_ssf),
    FILE_OF("Golden/search/param_count_mixed.json", search_param_count_mixed),
    FILE_OF("Golden/search/trace.json", search_trace),
    FILE_OF("Golden/vit/base.safetensors", vit_base),
    FILE_OF("Golden/vit/fixed_mixed.safetensors", vit_fixed_mixed),
    FILE_OF("Golden/vit/lr_schedule.json", vit_lr_schedule),
    FILE_OF("Golden/vit/traj_random_wellcond_zerograd_in_place.safetensors", vit_traj_random_wellcond_zerograd_in_place),
    FILE_OF("Golden/vit/traj_random_wellcond_zerograd_to_none.safetensors", vit_traj_random_wellcond_zerograd_to_none),
};

intptr_t embeddedFileCount(void) { return sizeof(files) / sizeof(files[0]); }

EmbeddedFile embeddedFile(intptr_t index) { return files[index]; }
