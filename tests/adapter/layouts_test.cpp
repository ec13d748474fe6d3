// Names written out by hand, each with the place that its producer gives it: a reader and a writer
// that agree on a wrong name, side or expert do not pass. Catalogue bases, r = 2: qwen3_moe E 8, H
// 64, I 24, layer 0 dense; mixtral, gpt_oss E 4, H 64, I 48; nemotron_h E 4, H 64, I 24.

#include <doctest/doctest.h>

#include "lib/base/error.h"
#include "tests/adapter/made_adapter.h"
#include "tests/io/error_text.h"

using namespace moelora;
using namespace moelora::test;

namespace {

constexpr int64_t kAll = -1;     // a tensor of all experts
constexpr int64_t kShared = -2;  // one matrix for all experts

constexpr Projection kGate = Projection::gate, kUp = Projection::up, kDown = Projection::down,
                     kGateUp = Projection::gate_up;

struct Row {
  const char* name;  // below "base_model.model."
  Shape shape;
  int layer;
  int64_t expert;
  Projection projection;
  Side side;
  Shape part;  // of one expert, canonical: A [r, in], B [out, r]
};

struct Table {
  const char *layout, *family;
  std::vector<Row> rows;
};

// clang-format off

// L2 of facts: PEFT on transformers 4 (ModuleList of Linears), tinker-cookbook build_lora_adapter
// (w1 -> gate_proj, w3 -> up_proj, w2 -> down_proj), ms-swift, prime-rl.
const Table kLinear = {"peft-linear", "qwen3_moe", {
    {"model.layers.1.mlp.experts.0.gate_proj.lora_A.weight", {2, 64}, 1, 0, kGate, Side::A, {2, 64}},
    {"model.layers.1.mlp.experts.0.gate_proj.lora_B.weight", {24, 2}, 1, 0, kGate, Side::B, {24, 2}},
    {"model.layers.1.mlp.experts.7.up_proj.lora_A.weight", {2, 64}, 1, 7, kUp, Side::A, {2, 64}},
    {"model.layers.1.mlp.experts.7.up_proj.lora_B.weight", {24, 2}, 1, 7, kUp, Side::B, {24, 2}},
    {"model.layers.1.mlp.experts.2.down_proj.lora_A.weight", {2, 24}, 1, 2, kDown, Side::A, {2, 24}},
    {"model.layers.1.mlp.experts.2.down_proj.lora_B.weight", {64, 2}, 1, 2, kDown, Side::B, {64, 2}},
    {"model.layers.2.mlp.experts.5.gate_proj.lora_A.weight", {2, 64}, 2, 5, kGate, Side::A, {2, 64}},
    {"model.layers.2.mlp.experts.5.gate_proj.lora_B.weight", {24, 2}, 2, 5, kGate, Side::B, {24, 2}}}};

// PEFT on Mixtral of transformers 4; w1 is the gate, w3 up, w2 down (modeling_mixtral.py).
const Table kMixtral = {"peft-linear", "mixtral", {
    {"model.layers.0.block_sparse_moe.experts.3.w1.lora_A.weight", {2, 64}, 0, 3, kGate, Side::A, {2, 64}},
    {"model.layers.0.block_sparse_moe.experts.3.w1.lora_B.weight", {48, 2}, 0, 3, kGate, Side::B, {48, 2}},
    {"model.layers.0.block_sparse_moe.experts.1.w3.lora_A.weight", {2, 64}, 0, 1, kUp, Side::A, {2, 64}},
    {"model.layers.0.block_sparse_moe.experts.1.w3.lora_B.weight", {48, 2}, 0, 1, kUp, Side::B, {48, 2}},
    {"model.layers.1.block_sparse_moe.experts.0.w2.lora_A.weight", {2, 48}, 1, 0, kDown, Side::A, {2, 48}},
    {"model.layers.1.block_sparse_moe.experts.0.w2.lora_B.weight", {64, 2}, 1, 0, kDown, Side::B, {64, 2}}}};

// PEFT on Grok-1's conversions for transformers: MoeMLP is act(linear) * linear_v, then linear_1
// (modeling_grok1.py; vLLM 0.24.0 grok1.py). E 5, H 60, I 52.
const Table kGrok1 = {"peft-linear", "grok1", {
    {"model.layers.0.moe_block.experts.3.linear.lora_A.weight", {2, 60}, 0, 3, kGate, Side::A, {2, 60}},
    {"model.layers.0.moe_block.experts.3.linear.lora_B.weight", {52, 2}, 0, 3, kGate, Side::B, {52, 2}},
    {"model.layers.0.moe_block.experts.1.linear_v.lora_A.weight", {2, 60}, 0, 1, kUp, Side::A, {2, 60}},
    {"model.layers.0.moe_block.experts.1.linear_v.lora_B.weight", {52, 2}, 0, 1, kUp, Side::B, {52, 2}},
    {"model.layers.1.moe_block.experts.0.linear_1.lora_A.weight", {2, 52}, 1, 0, kDown, Side::A, {2, 52}},
    {"model.layers.1.moe_block.experts.0.linear_1.lora_B.weight", {60, 2}, 1, 0, kDown, Side::B, {60, 2}}}};

// L7: PEFT target_parameters; ParamWrapper nests the first registered parameter (gate_up_proj) as
// base_layer (peft/tuners/tuners_utils.py _inject_parameters). A row e*r + k, B column k*E + e.
const Table kParams = {"peft-params", "gpt_oss", {
    {"model.layers.0.mlp.experts.base_layer.lora_A.weight", {8, 64}, 0, kAll, kGateUp, Side::A, {2, 64}},
    {"model.layers.0.mlp.experts.base_layer.lora_B.weight", {96, 8}, 0, kAll, kGateUp, Side::B, {96, 2}},
    {"model.layers.0.mlp.experts.lora_A.weight", {8, 48}, 0, kAll, kDown, Side::A, {2, 48}},
    {"model.layers.0.mlp.experts.lora_B.weight", {64, 8}, 0, kAll, kDown, Side::B, {64, 2}},
    {"model.layers.1.mlp.experts.base_layer.lora_A.weight", {8, 64}, 1, kAll, kGateUp, Side::A, {2, 64}},
    {"model.layers.1.mlp.experts.base_layer.lora_B.weight", {96, 8}, 1, kAll, kGateUp, Side::B, {96, 2}},
    {"model.layers.1.mlp.experts.lora_A.weight", {8, 48}, 1, kAll, kDown, Side::A, {2, 48}},
    {"model.layers.1.mlp.experts.lora_B.weight", {64, 8}, 1, kAll, kDown, Side::B, {64, 2}}}};

// The same of a family without a gate: up_proj is registered before down_proj (facts: peft.md 1.2).
const Table kNemotron = {"peft-params", "nemotron_h", {
    {"model.layers.1.mixer.experts.base_layer.lora_A.weight", {8, 64}, 1, kAll, kUp, Side::A, {2, 64}},
    {"model.layers.1.mixer.experts.base_layer.lora_B.weight", {24, 8}, 1, kAll, kUp, Side::B, {24, 2}},
    {"model.layers.1.mixer.experts.lora_A.weight", {8, 24}, 1, kAll, kDown, Side::A, {2, 24}},
    {"model.layers.1.mixer.experts.lora_B.weight", {64, 8}, 1, kAll, kDown, Side::B, {64, 2}},
    {"model.layers.3.mixer.experts.base_layer.lora_A.weight", {8, 64}, 3, kAll, kUp, Side::A, {2, 64}},
    {"model.layers.3.mixer.experts.base_layer.lora_B.weight", {24, 8}, 3, kAll, kUp, Side::B, {24, 2}},
    {"model.layers.3.mixer.experts.lora_A.weight", {8, 24}, 3, kAll, kDown, Side::A, {2, 24}},
    {"model.layers.3.mixer.experts.lora_B.weight", {64, 8}, 3, kAll, kDown, Side::B, {64, 2}}}};

// SGLang lora/lora.py after its own normalization; SkyRL.
const Table kStacked = {"stacked", "qwen3_moe", {
    {"model.layers.1.mlp.experts.gate_proj.lora_A.weight", {8, 2, 64}, 1, kAll, kGate, Side::A, {2, 64}},
    {"model.layers.1.mlp.experts.gate_proj.lora_B.weight", {8, 24, 2}, 1, kAll, kGate, Side::B, {24, 2}},
    {"model.layers.1.mlp.experts.up_proj.lora_A.weight", {8, 2, 64}, 1, kAll, kUp, Side::A, {2, 64}},
    {"model.layers.1.mlp.experts.up_proj.lora_B.weight", {8, 24, 2}, 1, kAll, kUp, Side::B, {24, 2}},
    {"model.layers.1.mlp.experts.down_proj.lora_A.weight", {8, 2, 24}, 1, kAll, kDown, Side::A, {2, 24}},
    {"model.layers.1.mlp.experts.down_proj.lora_B.weight", {8, 64, 2}, 1, kAll, kDown, Side::B, {64, 2}}}};

// L1: raw Tinker files, miles (Inkling), xorl sglang_shared_outer: w1 gate, w3 up, w2 down; A of w1
// and w3 and B of w2 have a leading 1.
const Table kSharedOuter = {"shared-outer", "qwen3_moe", {
    {"model.layers.2.mlp.experts.w1.lora_A.weight", {1, 2, 64}, 2, kShared, kGate, Side::A, {2, 64}},
    {"model.layers.2.mlp.experts.w1.lora_B.weight", {8, 24, 2}, 2, kAll, kGate, Side::B, {24, 2}},
    {"model.layers.2.mlp.experts.w3.lora_A.weight", {1, 2, 64}, 2, kShared, kUp, Side::A, {2, 64}},
    {"model.layers.2.mlp.experts.w3.lora_B.weight", {8, 24, 2}, 2, kAll, kUp, Side::B, {24, 2}},
    {"model.layers.2.mlp.experts.w2.lora_A.weight", {8, 2, 24}, 2, kAll, kDown, Side::A, {2, 24}},
    {"model.layers.2.mlp.experts.w2.lora_B.weight", {1, 64, 2}, 2, kShared, kDown, Side::B, {64, 2}}}};

// L4: SGLang packed experts, Megatron-Bridge's stream for bases fused in transformers 5.
const Table kStackedFused = {"stacked-fused", "qwen3_moe", {
    {"model.layers.1.mlp.experts.gate_up_proj.lora_A.weight", {8, 2, 64}, 1, kAll, kGateUp, Side::A, {2, 64}},
    {"model.layers.1.mlp.experts.gate_up_proj.lora_B.weight", {8, 48, 2}, 1, kAll, kGateUp, Side::B, {48, 2}},
    {"model.layers.1.mlp.experts.down_proj.lora_A.weight", {8, 2, 24}, 1, kAll, kDown, Side::A, {2, 24}},
    {"model.layers.1.mlp.experts.down_proj.lora_B.weight", {8, 64, 2}, 1, kAll, kDown, Side::B, {64, 2}},
    {"model.layers.2.mlp.experts.gate_up_proj.lora_A.weight", {8, 2, 64}, 2, kAll, kGateUp, Side::A, {2, 64}},
    {"model.layers.2.mlp.experts.gate_up_proj.lora_B.weight", {8, 48, 2}, 2, kAll, kGateUp, Side::B, {48, 2}}}};

// L3: ms-swift models with a fused gate_up, OpenPipe ART inside.
const Table kLinearFused = {"linear-fused", "qwen3_moe", {
    {"model.layers.1.mlp.experts.0.gate_up_proj.lora_A.weight", {2, 64}, 1, 0, kGateUp, Side::A, {2, 64}},
    {"model.layers.1.mlp.experts.0.gate_up_proj.lora_B.weight", {48, 2}, 1, 0, kGateUp, Side::B, {48, 2}},
    {"model.layers.1.mlp.experts.6.down_proj.lora_A.weight", {2, 24}, 1, 6, kDown, Side::A, {2, 24}},
    {"model.layers.1.mlp.experts.6.down_proj.lora_B.weight", {64, 2}, 1, 6, kDown, Side::B, {64, 2}},
    {"model.layers.2.mlp.experts.3.gate_up_proj.lora_A.weight", {2, 64}, 2, 3, kGateUp, Side::A, {2, 64}},
    {"model.layers.2.mlp.experts.3.gate_up_proj.lora_B.weight", {48, 2}, 2, 3, kGateUp, Side::B, {48, 2}}}};

// L13: Unsloth's linearized gpt-oss experts of its bnb-4bit models (unsloth PR 6936, #3405).
const Table kPlural = {"linear-fused", "gpt_oss", {
    {"model.layers.0.mlp.experts.gate_up_projs.0.lora_A.weight", {2, 64}, 0, 0, kGateUp, Side::A, {2, 64}},
    {"model.layers.0.mlp.experts.gate_up_projs.0.lora_B.weight", {96, 2}, 0, 0, kGateUp, Side::B, {96, 2}},
    {"model.layers.0.mlp.experts.down_projs.3.lora_A.weight", {2, 48}, 0, 3, kDown, Side::A, {2, 48}},
    {"model.layers.0.mlp.experts.down_projs.3.lora_B.weight", {64, 2}, 0, 3, kDown, Side::B, {64, 2}},
    {"model.layers.1.mlp.experts.gate_up_projs.2.lora_A.weight", {2, 64}, 1, 2, kGateUp, Side::A, {2, 64}},
    {"model.layers.1.mlp.experts.gate_up_projs.2.lora_B.weight", {96, 2}, 1, 2, kGateUp, Side::B, {96, 2}}}};

// clang-format on

std::string full(const Row& row) { return std::string("base_model.model.") + row.name; }

MadeAdapter file_of(const Table& table) {
  MadeAdapter made;
  for (const Row& row : table.rows) made.add(full(row), row.shape);
  return made;
}

// Where element [i, j] of expert e's part lies in the row's tensor.
int64_t place(const Row& row, int64_t experts, int64_t e, int64_t i, int64_t j) {
  const int64_t rows = row.part[0], cols = row.part[1];
  if (row.expert >= 0) return i * cols + j;
  if (row.shape.size() == 3) return ((row.expert == kShared ? 0 : e) * rows + i) * cols + j;
  if (row.side == Side::A) return (e * rows + i) * cols + j;
  return i * cols * experts + j * experts + e;  // column k*E + e
}

std::vector<float> expected_part(const Row& row, const Tensor& tensor, int64_t experts, int64_t e) {
  const std::vector<float> all = floats(tensor);
  std::vector<float> out;
  for (int64_t i = 0; i < row.part[0]; ++i)
    for (int64_t j = 0; j < row.part[1]; ++j)
      out.push_back(all[static_cast<size_t>(place(row, experts, e, i, j))]);
  return out;
}

void check_row(const Row& row, const Tensor& tensor, const Adapter& adapter) {
  CAPTURE(row.name);
  const auto found = adapter.experts.find({row.layer, row.projection});
  REQUIRE(found != adapter.experts.end());
  const Factor& factor = row.side == Side::A ? found->second.a : found->second.b;
  CHECK(factor.shared == (row.expert == kShared));
  for (int64_t e = 0; e < adapter.expert_count; ++e) {
    if (row.expert >= 0 && e != row.expert) continue;
    CAPTURE(e);
    REQUIRE(factor.has(e));
    CHECK(factor.at(e).shape() == row.part);
    CHECK(floats(factor.at(e)) == expected_part(row, tensor, adapter.expert_count, e));
  }
}

void check_read(const Table& table) {
  const MadeAdapter made = file_of(table);
  const LoadedAdapter loaded = made.read(table.family);
  REQUIRE(loaded.layout != nullptr);
  CHECK(loaded.layout->id == table.layout);
  CHECK(loaded.adapter.dense.empty());
  CHECK(loaded.adapter.extras.empty());
  for (const Row& row : table.rows) check_row(row, made.tensors().at(full(row)), loaded.adapter);
}

void check_written_again(const Table& table) {
  const MadeAdapter made = file_of(table);
  const Conversion c = made.convert(table.layout, table.family);
  REQUIRE(c.tensors.size() == table.rows.size());
  for (const Row& row : table.rows) {
    CAPTURE(row.name);
    REQUIRE(c.tensors.count(full(row)) == 1);
    CHECK(c.tensors.at(full(row)).shape() == row.shape);
    CHECK(floats(c.tensors.at(full(row))) == floats(made.tensors().at(full(row))));
  }
}

}  // namespace

TEST_CASE(
    "each name of each layout is the layer, expert, projection and side that its producer means") {
  for (const Table* table : {&kLinear, &kMixtral, &kGrok1, &kParams, &kNemotron, &kStacked,
                             &kSharedOuter, &kStackedFused, &kLinearFused, &kPlural}) {
    CAPTURE(table->layout);
    CAPTURE(table->family);
    check_read(*table);
  }
}

TEST_CASE("what is read in a layout is written in it again, name by name and bit by bit") {
  for (const Table* table : {&kLinear, &kMixtral, &kGrok1, &kParams, &kNemotron, &kStacked,
                             &kSharedOuter, &kStackedFused, &kLinearFused}) {
    CAPTURE(table->layout);
    CAPTURE(table->family);
    check_written_again(*table);
  }
}

TEST_CASE("every layout is there under its id, and an unknown id lists them all") {
  std::string ids;
  for (const Layout* layout : all_layouts()) {
    ids += (ids.empty() ? "" : ", ") + std::string(layout->id);
    CHECK(&layout_by_id(layout->id) == layout);
    for (const std::string_view text :
         {layout->summary, layout->names, layout->shapes, layout->sources})
      CHECK(!text.empty());
  }
  for (const char* id :
       {"linear-fused", "peft-linear", "peft-params", "shared-outer", "stacked", "stacked-fused"})
    CHECK(ids.find(id) != std::string::npos);
  CHECK(error_text([] { layout_by_id("peft"); }) == "--to: unknown layout 'peft'");
  CHECK(error_hint([] { layout_by_id("peft"); }) == "layouts: " + ids);
}
