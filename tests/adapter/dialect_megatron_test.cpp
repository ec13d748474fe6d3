// Megatron-Core's joined modules become those of the base model, row by row.

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "lib/adapter/dialect.h"
#include "lib/adapter/foreign/dialect_tools.h"
#include "lib/base/numbers.h"
#include "lib/model/base_model.h"
#include "tests/adapter/made_adapter.h"
#include "tests/io/error_text.h"

using namespace moelora;
using namespace moelora::test;

namespace {

ModelSpec spec_of(const std::string& base) {
  return open_base(std::string(MOELORA_TEST_DATA "/") + base).spec;
}

// 4 heads, 2 key-value heads of 16; hidden 64; layer 0 dense (96), the others 8 experts of 24.
const ModelSpec& qwen() {
  static const ModelSpec spec = spec_of("qwen3_moe/base");
  return spec;
}

// Each element is the number of its row, 1000 more for each experts' matrix.
Tensor rows(const Shape& shape, float first = 0) {
  std::vector<float> values;
  const int64_t columns = shape.back(), count = shape[shape.size() - 2];
  for (int64_t i = 0; i < (shape.size() == 3 ? shape[0] : 1) * count; ++i)
    values.insert(values.end(), static_cast<size_t>(columns),
                  first + static_cast<float>(i / count * 1000 + i % count));
  return Tensor::of_f32(shape, values);
}

TensorMap read(const Dialect& dialect, const TensorMap& tensors, const ModelSpec* spec,
               const Json& config = {}) {
  const std::string where = "adapter_config.json";
  const bool of_ranks = std::any_of(tensors.begin(), tensors.end(), [](const auto& entry) {
    return entry.first.starts_with("mp_rank_") || entry.first.starts_with("adapter_megatron_");
  });
  Translation out;
  dialect.read({tensors, config, where, spec, of_ranks ? ShardSet::ranks : ShardSet::none}, out);
  return out.tensors;
}

std::string refusal(const Dialect& dialect, const TensorMap& tensors, const ModelSpec* spec) {
  return error_text([&] { read(dialect, tensors, spec); });
}

TensorMap core(const std::string& module, const Tensor& a, const Tensor& b) {
  return {{module + ".lora_A.default.weight", a}, {module + ".lora_B.default.weight", b}};
}

TensorMap bridge(const std::string& module, const Tensor& a, const Tensor& b) {
  return {{module + ".adapter.linear_in.weight", a}, {module + ".adapter.linear_out.weight", b}};
}

TensorMap joined(TensorMap a, const TensorMap& b) {
  a.insert(b.begin(), b.end());
  return a;
}

// The first column.
std::vector<float> column(const TensorMap& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) return {};
  const Tensor& tensor = found->second;
  return floats(tensor.slice(tensor.rank() - 1, 0, 1));
}

std::vector<float> ranges(std::initializer_list<std::pair<int, int>> parts) {
  std::vector<float> out;
  for (const auto& [first, count] : parts)
    for (int i = 0; i < count; ++i) out.push_back(static_cast<float>(first + i));
  return out;
}

const std::string kAttention = "base_model.model.model.layers.1.self_attn.";
const std::string kMoe = "base_model.model.model.layers.1.mlp.";

}  // namespace

// Megatron-Bridge param_mapping.py split_qkv_weights; mcore-bridge gpt_bridge.py _set_attn_state.
TEST_CASE("the rows of linear_qkv come by key-value heads") {
  const std::string module = "decoder.layers.1.self_attention.linear_qkv";
  for (const Dialect* dialect : {&dialects::megatron_core, &dialects::megatron_bridge}) {
    CAPTURE(dialect->id);
    const bool is_core = dialect == &dialects::megatron_core;
    const TensorMap in = is_core ? core(module, rows({4, 64}), rows({128, 4}))
                                 : bridge(module, rows({4, 64}), rows({128, 4}));
    const TensorMap out = read(*dialect, in, &qwen());
    CHECK(out.size() == 6);
    CHECK(column(out, kAttention + "q_proj.lora_B.weight") == ranges({{0, 32}, {64, 32}}));
    CHECK(column(out, kAttention + "k_proj.lora_B.weight") == ranges({{32, 16}, {96, 16}}));
    CHECK(column(out, kAttention + "v_proj.lora_B.weight") == ranges({{48, 16}, {112, 16}}));
    for (const char* name : {"q_proj", "k_proj", "v_proj"})
      CHECK(column(out, kAttention + name + ".lora_A.weight") == ranges({{0, 4}}));
  }
}

// 6 heads, 2 key-value heads of 16: a group has 48 rows of q, as many of its gate, k and v.
// mcore-bridge qwen3_next.py: gate = query[:, :, 1::2]; Megatron-Bridge: z_slice after q_slice.
TEST_CASE("an output gate lies by head in ms-swift, by group in Megatron-Bridge") {
  const ModelSpec spec = spec_of("family_goldens/qwen3_next/base");
  const std::string module = "decoder.layers.1.self_attention.linear_qkv";
  const std::string q = kAttention + "q_proj.lora_B.weight";
  const TensorMap by_head =
      read(dialects::megatron_core, core(module, rows({4, 60}), rows({256, 4})), &spec);
  CHECK(column(by_head, q) == ranges({{0, 96}, {128, 96}}));
  const TensorMap by_group =
      read(dialects::megatron_bridge, bridge(module, rows({4, 60}), rows({256, 4})), &spec);
  CHECK(column(by_group, q) == ranges({{0, 16},
                                       {48, 16},
                                       {16, 16},
                                       {64, 16},
                                       {32, 16},
                                       {80, 16},
                                       {128, 16},
                                       {176, 16},
                                       {144, 16},
                                       {192, 16},
                                       {160, 16},
                                       {208, 16}}));
  CHECK(column(by_group, kAttention + "k_proj.lora_B.weight") == ranges({{96, 16}, {224, 16}}));
}

TEST_CASE("linear_fc1 is gate and up, of each tensor-parallel rank") {
  const std::string module = "decoder.layers.0.mlp.linear_fc1";
  const std::string mlp = "base_model.model.model.layers.0.mlp.";
  const TensorMap one =
      read(dialects::megatron_core, core(module, rows({2, 64}), rows({192, 2})), &qwen());
  CHECK(column(one, mlp + "gate_proj.lora_B.weight") == ranges({{0, 96}}));
  CHECK(column(one, mlp + "up_proj.lora_B.weight") == ranges({{96, 96}}));
  TensorMap two;
  for (const int rank : {0, 1}) {
    const float first = static_cast<float>(1000 * rank);
    two =
        joined(std::move(two), bridge("mp_rank_0" + std::to_string(rank) + "_adapter.pt:" + module,
                                      rows({1, 64}, first), rows({96, 2}, first)));
  }
  const TensorMap out = read(dialects::megatron_bridge, two, &qwen());
  CHECK(out.size() == 4);
  CHECK(column(out, mlp + "gate_proj.lora_A.weight") == ranges({{0, 1}, {1000, 1}}));
  CHECK(column(out, mlp + "gate_proj.lora_B.weight") == ranges({{0, 48}, {1000, 48}}));
  CHECK(column(out, mlp + "up_proj.lora_B.weight") == ranges({{48, 48}, {1048, 48}}));
}

// Megatron-Bridge peft/lora.py LoRAMerge.merge: of a row-parallel module linear_in is cut by
// columns, linear_out by rows.
TEST_CASE("a row-parallel module is cut by its inputs") {
  TensorMap in;
  const std::string module = "module.decoder.layers.1.self_attention.linear_proj";
  for (const int rank : {0, 1}) {
    const float first = static_cast<float>(1000 * rank);
    in = joined(std::move(in),
                bridge("adapter_megatron_tp" + std::to_string(rank) + "_pp0.pt:" + module,
                       rows({2, 32}, first), rows({32, 2}, first)));
  }
  const TensorMap out = read(dialects::megatron_bridge, in, &qwen());
  CHECK(column(out, kAttention + "o_proj.lora_B.weight") == ranges({{0, 32}, {1000, 32}}));
  const Tensor a = out.at(kAttention + "o_proj.lora_A.weight");
  CHECK(a.shape() == Shape{2, 64});
  CHECK(floats(a.slice(1, 31, 2)) == std::vector<float>{0, 1000, 1, 1001});
}

TEST_CASE("every other module has one counterpart") {
  struct Row {
    const char *base, *megatron, *hub;
    int64_t in, out;
  };
  for (const Row& row : std::initializer_list<Row>{
           {"qwen3_moe/base", "mlp.router", "mlp.gate", 64, 8},
           {"qwen3_moe/base", "self_attention.linear_proj", "self_attn.o_proj", 64, 64},
           {"mixtral/base", "mlp.router", "block_sparse_moe.gate", 64, 4},
           {"deepseek_v3/base", "self_attention.linear_q_down_proj", "self_attn.q_a_proj", 64, 24},
           {"deepseek_v3/base", "self_attention.linear_q_up_proj", "self_attn.q_b_proj", 24, 96},
           {"deepseek_v3/base", "self_attention.linear_kv_down_proj",
            "self_attn.kv_a_proj_with_mqa", 64, 24},
           {"deepseek_v3/base", "self_attention.linear_kv_up_proj", "self_attn.kv_b_proj", 16, 128},
           {"deepseek_v3/base", "mlp.shared_experts.linear_fc2", "mlp.shared_experts.down_proj", 48,
            64},
           {"qwen2_moe/base", "mlp.shared_experts.linear_fc2", "mlp.shared_expert.down_proj", 40,
            64}}) {
    CAPTURE(row.megatron);
    const ModelSpec spec = spec_of(row.base);
    const std::string module = std::string("decoder.layers.1.") + row.megatron;
    const std::string hub = std::string("base_model.model.model.layers.1.") + row.hub;
    const LinearSpec* known = spec.find_linear(hub.substr(17));
    REQUIRE(known != nullptr);
    for (const bool is_core : {true, false}) {
      const Tensor a = rows({2, known->in}), b = rows({known->out, 2});
      const TensorMap out = is_core ? read(dialects::megatron_core, core(module, a, b), &spec)
                                    : read(dialects::megatron_bridge, bridge(module, a, b), &spec);
      CHECK(out.size() == 2);
      CHECK(out.count(hub + ".lora_A.weight") == 1);
      CHECK(out.count(hub + ".lora_B.weight") == 1);
    }
  }
  const TensorMap head =
      read(dialects::megatron_core, core("output_layer", rows({2, 64}), rows({160, 2})), &qwen());
  CHECK(head.count("base_model.model.lm_head.lora_B.weight") == 1);
}

// cases/swift_mcore_names: decoder.layers.0.mlp.experts.linear_fc1.lora_A.default.weight0
TEST_CASE("the experts of ms-swift are numbered weights") {
  TensorMap in;
  for (int e = 0; e < 8; ++e) {
    const std::string end = ".default.weight" + std::to_string(e);
    const std::string fc1 = "decoder.layers.1.mlp.experts.linear_fc1.lora_";
    in.emplace(fc1 + "A" + end, rows({2, 64}));
    in.emplace(fc1 + "B" + end, rows({48, 2}, static_cast<float>(100 * e)));
  }
  in.emplace("decoder.layers.1.mlp.experts.linear_fc1.lora_A.default._extra_state", rows({1, 1}));
  const TensorMap out = read(dialects::megatron_core, in, &qwen());
  CHECK(out.size() == 32);
  CHECK(column(out, kMoe + "experts.7.gate_proj.lora_B.weight") == ranges({{700, 24}}));
  CHECK(column(out, kMoe + "experts.7.up_proj.lora_B.weight") == ranges({{724, 24}}));
}

// Megatron-Bridge peft/utils.py: ParallelLinearAdapter is shared by the experts of a rank,
// GroupedExpertLinearAdapter has one for each.
TEST_CASE("the experts of Megatron-Bridge share a pair, or have one each") {
  const std::string fc2 = "decoder.layers.1.mlp.experts.linear_fc2";
  const std::string down = kMoe + "experts.down_proj.lora_B.weight";
  const auto of_rank = [&](int rank, const Shape& a, const Shape& b) {
    const float first = static_cast<float>(10000 * rank);
    return bridge("adapter_megatron_tp0_pp0_ep" + std::to_string(rank) + ".pt:" + fc2,
                  rows(a, first), rows(b, first));
  };
  const auto read_both = [&](const Shape& a, const Shape& b) {
    return read(dialects::megatron_bridge, joined(of_rank(0, a, b), of_rank(1, a, b)), &qwen());
  };
  const TensorMap shared = read_both({2, 24}, {64, 2});
  CHECK(shared.at(down).shape() == Shape{8, 64, 2});
  for (int e = 0; e < 8; ++e)
    CHECK(floats(shared.at(down).select(0, e).slice(0, 1, 1))[0] == (e < 4 ? 1 : 10001));
  const TensorMap grouped = read_both({4, 2, 24}, {4, 64, 2});
  CHECK(grouped.at(down).shape() == Shape{8, 64, 2});
  for (int e = 0; e < 8; ++e)
    CHECK(floats(grouped.at(down).select(0, e))[0] ==
          static_cast<float>(e % 4 * 1000 + e / 4 * 10000));
  const TensorMap alone =
      read(dialects::megatron_bridge, bridge(fc2, rows({2, 24}), rows({64, 2})), &qwen());
  CHECK(alone.at(down).shape() == Shape{8, 64, 2});
}

TEST_CASE("local experts of a rank follow those of the ranks before") {
  TensorMap in;
  for (const int rank : {0, 1})
    for (int e = 0; e < 4; ++e)
      in = joined(std::move(in),
                  bridge("adapter_megatron_tp0_pp0_ep" + std::to_string(rank) +
                             ".pt:decoder.layers.1.mlp.experts.local_experts." + std::to_string(e) +
                             ".linear_fc2",
                         rows({2, 24}), rows({64, 2}, static_cast<float>(rank * 4 + e))));
  const TensorMap out = read(dialects::megatron_bridge, in, &qwen());
  for (int e = 0; e < 8; ++e)
    CHECK(column(out, kMoe + "experts." + std::to_string(e) + ".down_proj.lora_B.weight")[0] == e);
}

TEST_CASE("local experts of one rank of two are not all of the base model's") {
  TensorMap in;
  for (int e = 0; e < 4; ++e)
    in = joined(std::move(in), bridge("decoder.layers.1.mlp.experts.local_experts." +
                                          std::to_string(e) + ".linear_fc2",
                                      rows({2, 24}), rows({64, 2})));
  CHECK(refusal(dialects::megatron_bridge, in, &qwen()) ==
        "decoder.layers.1.mlp.experts.linear_fc2: has factors of 4 experts, and this base model "
        "has 8: they are those of one rank of an expert-parallel training");
}

// Megatron-Bridge peft/canonical_lora.py.
TEST_CASE("canonical LoRA has an adapter for each projection") {
  const TensorMap out = read(
      dialects::megatron_bridge,
      joined(
          {{"decoder.layers.1.self_attention.linear_qkv.adapter.adapter_k.linear_in.weight",
            rows({2, 64})},
           {"decoder.layers.1.self_attention.linear_qkv.adapter.adapter_k.linear_out.weight",
            rows({32, 2})}},
          {{"decoder.layers.0.mlp.linear_fc1.adapter.adapter_up.linear_in.weight", rows({2, 64})},
           {"decoder.layers.0.mlp.linear_fc1.adapter.adapter_up.linear_out.weight",
            rows({96, 2})}}),
      &qwen());
  CHECK(out.size() == 4);
  CHECK(column(out, kAttention + "k_proj.lora_B.weight") == ranges({{0, 32}}));
  CHECK(out.count("base_model.model.model.layers.0.mlp.up_proj.lora_B.weight") == 1);
}

TEST_CASE("a file of Megatron that cannot be read says why") {
  const std::string qkv = "decoder.layers.1.self_attention.linear_qkv";
  const Dialect &swift = dialects::megatron_core, &nemo = dialects::megatron_bridge;
  CHECK(refusal(swift, core(qkv, rows({4, 64}), rows({128, 4})), nullptr) ==
        qkv +
            ".lora_A.default.weight: is of a module of Megatron-Core, which joins several of the "
            "base model's by their heads and widths");
  CHECK(refusal(nemo, bridge(qkv, rows({4, 64}), rows({128, 4})), nullptr) ==
        qkv +
            ".adapter.linear_in.weight: is of a module of Megatron-Core, which joins several of "
            "the base model's by their heads and widths");
  CHECK(refusal(swift, core(qkv, rows({4, 64}), rows({96, 4})), &qwen()) ==
        qkv + ".lora_B.default.weight: is [96, 4], and " + qkv +
            " of this base model has 128 outputs");
  CHECK(refusal(swift, core(qkv, rows({4, 60}), rows({128, 4})), &qwen()) ==
        qkv + ".lora_A.default.weight: is [4, 60], and " + qkv +
            " of this base model has 64 inputs");
  CHECK(refusal(swift, core("decoder.layers.3.mlp.router", rows({4, 64}), rows({8, 4})), &qwen()) ==
        "decoder.layers.3.mlp.router.lora_A.default.weight: is of layer 3, and this base model has "
        "3");
  CHECK(refusal(swift, core("decoder.layers.0.self_attention.in_proj", rows({4, 60}), rows({9, 4})),
                &qwen()) ==
        "decoder.layers.0.self_attention.in_proj.lora_A.default.weight: adapts "
        "decoder.layers.0.self_attention.in_proj, whose counterpart in this base model is not "
        "known");
  CHECK(refusal(swift,
                {{"decoder.layers.1.mlp.experts.linear_fc2.lora_A.default.weight8", rows({2, 24})}},
                &qwen()) ==
        "decoder.layers.1.mlp.experts.linear_fc2.lora_A.default.weight8: is of expert 8, and this "
        "base model has 8");
  CHECK(refusal(swift,
                {{"decoder.layers.1.mlp.experts.linear_fc2.lora_A.default.weight3", rows({2, 24})}},
                &qwen()) ==
        "decoder.layers.1.mlp.experts.linear_fc2: has factors of 1 experts, and this base model "
        "has 8: they are those of one rank of an expert-parallel training");
  CHECK(refusal(swift,
                {{"decoder.layers.0.mlp.experts.linear_fc2.lora_A.default.weight3", rows({2, 24})}},
                &qwen()) ==
        "decoder.layers.0.mlp.experts.linear_fc2.lora_A.default.weight3: layer 0 of this base "
        "model has no routed experts");
  CHECK(refusal(swift,
                core("decoder.layers.1.mlp.experts.linear_fc2", rows({2, 24}), rows({64, 2})),
                &qwen()) ==
        "decoder.layers.1.mlp.experts.linear_fc2.lora_A.default.weight: is of the routed experts, "
        "and does not say of which");
  const std::string unread = "decoder.layers.1.mlp.experts.local_experts.007.linear_fc2";
  CHECK(refusal(nemo, bridge(unread, rows({2, 24}), rows({64, 2})), &qwen()) ==
        unread + ".adapter.linear_in.weight: adapts " + unread +
            ", whose counterpart in this base model is not known");
  CHECK(refusal(swift, {{qkv + ".lora_A.default.weight2", rows({2, 24})}}, &qwen()) ==
        qkv + ".lora_A.default.weight2: has a number, and is of no routed expert");
  CHECK(refusal(swift,
                joined(core(qkv, rows({4, 64}), rows({128, 4})),
                       {{qkv + ".lora_B.default.bias", rows({128, 1})}}),
                &qwen()) ==
        qkv + ".lora_B.default.bias: is no factor of a module of Megatron-Core's decoder");
  const std::string mtp = "mtp.layers.0.transformer_layer.self_attention.linear_proj";
  CHECK(refusal(swift, core(mtp, rows({4, 64}), rows({64, 4})), &qwen()) ==
        mtp + ".lora_A.default.weight: is no factor of a module of Megatron-Core's decoder");
  CHECK(refusal(nemo, bridge("encoder.layers.1.x", rows({4, 64}), rows({128, 4})), &qwen()) ==
        "encoder.layers.1.x.adapter.linear_in.weight: is not linear_in.weight or linear_out.weight "
        "of a module of Megatron-Core's decoder");
  CHECK(refusal(nemo, {{qkv + ".adapter.weight_magnitude", rows({128, 1})}}, &qwen()) ==
        qkv +
            ".adapter.weight_magnitude: is not linear_in.weight or linear_out.weight of a module "
            "of Megatron-Core's decoder");
  CHECK(refusal(nemo, {{qkv + ".adapter.linear_in.weight", rows({4, 64})}}, &qwen()) ==
        qkv + ".adapter.linear_in.weight: has no linear_out beside it");
}

TEST_CASE("ranks that are not all there are refused") {
  const Dialect& nemo = dialects::megatron_bridge;
  const std::string proj = "decoder.layers.1.self_attention.linear_proj";
  CHECK(refusal(nemo, bridge(proj, rows({2, 32}), rows({32, 2})), &qwen()) ==
        proj + ".adapter.linear_in.weight: is [2, 32] of one rank, and " + proj +
            " of this base model has [2, 64]: ranks are missing, or it is another model");
  const auto two = [&](const Shape& a0, const Shape& a1) {
    return joined(bridge("mp_rank_00_adapter.pt:" + proj, rows(a0), rows({32, 2})),
                  bridge("mp_rank_01_adapter.pt:" + proj, rows(a1), rows({32, 2})));
  };
  CHECK(refusal(nemo, two({2, 16}, {2, 16}), &qwen()) ==
        "mp_rank_00_adapter.pt:" + proj +
            ".adapter.linear_in.weight: is [2, 16] of 2 tensor-parallel ranks, and " + proj +
            " of this base model has [2, 64]: ranks are missing, or it is another model");
  CHECK(refusal(nemo, two({2, 32}, {2, 16}), &qwen()) ==
        "mp_rank_01_adapter.pt:" + proj +
            ".adapter.linear_in.weight: is F32 [2, 16], and "
            "mp_rank_00_adapter.pt:" +
            proj + ".adapter.linear_in.weight is F32 [2, 32]");
  TensorMap gone = two({2, 32}, {2, 32});
  gone.erase("mp_rank_01_adapter.pt:" + proj + ".adapter.linear_in.weight");
  CHECK(refusal(nemo, gone, &qwen()) ==
        "mp_rank_00_adapter.pt:" + proj +
            ".adapter.linear_in.weight: has no part of tensor-parallel rank 1");

  const std::string fc2 = "decoder.layers.2.mlp.experts.linear_fc2";
  const auto of_rank = [&](int rank) {
    return bridge("adapter_megatron_tp0_pp0_ep" + std::to_string(rank) + ".pt:" + fc2,
                  rows({2, 2, 24}), rows({2, 64, 2}));
  };
  CHECK(refusal(nemo, joined(of_rank(0), of_rank(1)), &qwen()) ==
        "adapter_megatron_tp0_pp0_ep0.pt:" + fc2 +
            ".adapter.linear_in.weight: is [2, 2, 24] of 2 ranks of the experts, and this base "
            "model has 8 experts");
  CHECK(refusal(nemo, joined(of_rank(0), joined(of_rank(1), of_rank(2))), &qwen()) ==
        "adapter_megatron_tp0_pp0_ep0.pt:" + fc2 +
            ".adapter.linear_in.weight: is of 3 ranks of the experts, which do not divide 8 "
            "experts");
}

// Three of four ranks divide 12 experts, and their files look like those of three.
TEST_CASE("shared pairs of what may be all ranks but the last are refused") {
  ModelSpec twelve = qwen(), nine = qwen();
  twelve.experts = 12;
  nine.experts = 9;
  const std::string fc2 = "decoder.layers.2.mlp.experts.linear_fc2";
  const auto ranks = [&](int count, const Shape& a, const Shape& b) {
    TensorMap out;
    for (int rank = 0; rank < count; ++rank)
      out = joined(std::move(out),
                   bridge("adapter_megatron_tp0_pp0_ep" + std::to_string(rank) + ".pt:" + fc2,
                          rows(a), rows(b)));
    return out;
  };
  const auto shared = [&](int count) { return ranks(count, {2, 24}, {64, 2}); };
  const Dialect& nemo = dialects::megatron_bridge;
  CHECK(refusal(nemo, shared(3), &twelve) ==
        "adapter_megatron_tp0_pp0_ep0.pt:" + fc2 +
            ".adapter.linear_in.weight: is of 3 ranks of the experts, which share one pair of "
            "factors each: the files of all but the last that had 4 would look the same");
  CHECK(refusal(nemo, shared(4), &twelve).empty());
  CHECK(refusal(nemo, shared(6), &twelve).empty());  // 8 do not divide 12
  CHECK(refusal(nemo, shared(3), &nine).empty());
  CHECK(refusal(nemo, ranks(3, {4, 2, 24}, {4, 64, 2}), &twelve).empty());  // all 12 are there
}

// What a file calls its tensors does not make it one of a set.
TEST_CASE("a name with a colon in an ordinary file is no rank file's") {
  const std::string proj = "decoder.layers.1.self_attention.linear_proj";
  TensorMap in = bridge(proj, rows({2, 64}), rows({64, 2}));
  in.emplace("mp.pt:scores", rows({3, 4}));
  const std::string where;
  Translation out;
  dialects::megatron_bridge.read({in, {}, where, &qwen()}, out);
  CHECK(out.tensors.size() == 3);
  CHECK(out.tensors.count("mp.pt:scores") == 1);
  const TensorMap twice = joined(bridge(proj, rows({2, 64}), rows({64, 2})),
                                 bridge("mp.pt:" + proj, rows({2, 64}), rows({64, 2})));
  CHECK(refusal(dialects::megatron_bridge, twice, &qwen()).find(": is a second ") !=
        std::string::npos);
  CHECK(out.own_names.at("base_model.model.model.layers.1.self_attn.o_proj.lora_A.weight") ==
        proj + ".adapter.linear_in.weight");
}

// mp_rank_00_001: verl writes the pipeline's rank, or the experts' where there is no pipeline.
TEST_CASE("two numbers of a rank are the experts' where the last layer is there") {
  const auto of_layer = [](int layer) {
    TensorMap out;
    for (const int rank : {0, 1})
      out = joined(std::move(out),
                   bridge("mp_rank_00_00" + std::to_string(rank) + "_adapter.pt:decoder.layers." +
                              std::to_string(layer) + ".self_attention.linear_proj",
                          rows({2, 64}), rows({64, 2})));
    return out;
  };
  CHECK(read(dialects::megatron_bridge, of_layer(2), &qwen()).size() == 2);
  CHECK(refusal(dialects::megatron_bridge, of_layer(1), &qwen()) ==
        "mp_rank_00_000_adapter.pt:decoder.layers.1.self_attention.linear_proj.adapter.linear_in."
        "weight: may be of a pipeline stage, which numbers its layers from 0: the last layer here "
        "is 1, and this base model has 3");
}

// Megatron writes a second number where there are several stages or several ranks of the experts.
TEST_CASE("a lone file of two numbers is one rank of several") {
  const std::string fc2 = ":decoder.layers.2.mlp.experts.linear_fc2";
  const auto named = [&](const std::string& file) {
    return bridge(file + fc2, rows({2, 24}), rows({64, 2}));
  };
  for (const char* file : {"mp_rank_00_000_adapter.pt", "mp_rank_00_000_000_adapter.pt",
                           "adapter_megatron_tp0_pp0_ep0.pt"}) {
    CAPTURE(file);
    CHECK(refusal(dialects::megatron_bridge, named(file), &qwen())
              .ends_with("is in a file of one rank of the experts, and those of the others are not "
                         "here"));
  }
  for (const char* file : {"mp_rank_00_adapter.pt", "adapter_megatron_tp0_pp0.pt"}) {
    CAPTURE(file);
    CHECK(refusal(dialects::megatron_bridge, named(file), &qwen()).empty());
  }
}

TEST_CASE("how many ranks of the experts there were is said not to be checked") {
  const auto note = [](int ranks) {
    TensorMap in;
    for (int rank = 0; rank < ranks; ++rank)
      in = joined(std::move(in), bridge("adapter_megatron_tp0_pp0" +
                                            (ranks == 1 ? "" : "_ep" + std::to_string(rank)) +
                                            ".pt:decoder.layers.2.mlp.experts.linear_fc2",
                                        rows({2, 24}), rows({64, 2})));
    const std::string where;
    Translation out;
    dialects::megatron_bridge.read({in, {}, where, &qwen(), ShardSet::ranks}, out);
    return out.notes.at(0);
  };
  CHECK(note(1) ==
        "the 8 experts of a layer share one pair of factors (not checked: the files do not say how "
        "many ranks of the experts the training had, one is taken for all)");
  CHECK(note(2) ==
        "4 experts at a time share one pair of factors (not checked: the files do not say how many "
        "ranks of the experts the training had, the 2 here are taken for all)");
}

TEST_CASE("alphas of Megatron's modules are not lost") {
  const auto translated = [](const std::string& pattern) {
    AdapterFiles files;
    files.tensors = core("decoder.layers.1.mlp.router", rows({4, 64}), rows({8, 4}));
    read_config(
        parse_json(R"({"r": 4, "lora_alpha": 8, "alpha_pattern": {")" + pattern + R"(": 6}})",
                   "adapter_config.json"),
        files);
    translate(files, &qwen());
    return files;
  };
  const std::string fault = error_text([&] { translated("linear_fc1"); });
  CAPTURE(fault);
  CHECK(fault.find("alpha_pattern") != std::string::npos);
  CHECK(fault.find("linear_fc1") != std::string::npos);
  CHECK(fault.ends_with("names no module of the base model that the file has factors of"));
  CHECK(!error_text([&] { translated("mlp.router"); }).empty());  // Megatron's name
  CHECK(translated("mlp.gate").config.scaling("model.layers.1.mlp.gate").alpha == 6);
}
