// A module under a text model's prefix and under a wrapper's, and parts that are no text model.

#include "lib/adapter/names/text_names.h"

#include <doctest/doctest.h>

#include "tests/adapter/made_adapter.h"
#include "tests/io/error_text.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::string kText = "model.layers.1.self_attn.q_proj";
const std::string kWrapped = "model.language_model.layers.1.self_attn.q_proj";
const std::string kExpert = "layers.0.mlp.experts.3.down_proj";

MadeAdapter pair_of(const std::string& module) {
  MadeAdapter made;
  return made.pair(module, {2, 64}, {64, 2});
}

void add_twin(MadeAdapter& made, const std::string& module, const std::string& of) {
  made.copy(a_name(module), a_name(of)).copy(b_name(module), b_name(of));
}

std::string only_dense(const LoadedAdapter& read) {
  return read.adapter.dense.size() == 1 ? read.adapter.dense.begin()->first : "";
}

}  // namespace

TEST_CASE("what is left of a text model's prefix is the same in a wrapper") {
  for (const char* prefix : {"model.", "model.language_model.", "language_model.model.",
                             "language_model.", "backbone.", ""})
    CHECK(text_tail(prefix + std::string("layers.3.mlp.up_proj")) == "layers.3.mlp.up_proj");
  CHECK(text_tail("model.embed_tokens") == "embed_tokens");
  CHECK(text_tail("model.visual.blocks.0.attn.qkv").empty());
}

TEST_CASE("towers and prediction layers are told by a component of the path") {
  for (const char* module :
       {"model.visual.blocks.0.attn.qkv", "vision_tower.encoder.layers.0.mlp.fc1",
        "audio_tower.layers.1.fc2", "model.multi_modal_projector.linear_1", "mtp.layers.0.q_proj"})
    CHECK(is_in_tower(module));
  CHECK_FALSE(is_in_tower(kWrapped));
  CHECK_FALSE(is_in_tower("model.layers.0.revisual.q_proj"));
}

TEST_CASE("a second spelling with the same bytes is left out and said") {
  MadeAdapter made = pair_of(kWrapped);
  add_twin(made, kText, kWrapped);
  const LoadedAdapter alone = made.read();
  CHECK(only_dense(alone) == kWrapped);  // the first, where no base says more
  CHECK(alone.twins.size() == 2);
  REQUIRE(alone.notes.size() == 1);
  CHECK(alone.notes[0].find("second spelling with the same bytes") != std::string::npos);
  CHECK(only_dense(made.read("qwen3_moe")) == kText);  // what the base has
  SUBCASE("experts too") {
    MadeAdapter experts = pair_of(kWrapped);
    experts.pair("model." + kExpert, {2, 24}, {64, 2});
    add_twin(experts, "model.language_model." + kExpert, "model." + kExpert);
    const LoadedAdapter read = experts.read();
    CHECK(read.adapter.experts.size() == 1);
    CHECK(read.twins.size() == 2);
  }
}

TEST_CASE("another module is no twin, whatever is equal in it") {
  // A lora_B that training has not touched is zero in both.
  MadeAdapter made = pair_of(kWrapped);
  made.add(a_name(kText), {2, 64}).copy(b_name(kText), b_name(kWrapped));
  CHECK(made.read().adapter.dense.size() == 2);
  MadeAdapter tower = pair_of("model.layers.1.self_attn.q_proj");
  add_twin(tower, "model.visual.layers.1.self_attn.q_proj", kText);
  CHECK(tower.read().adapter.dense.size() == 2);
}
