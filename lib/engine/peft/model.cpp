#include "lib/engine/peft/model.h"

#include <fmt/core.h>

#include <array>

#include "lib/base/error.h"

namespace moelora::peft {
namespace {

struct Pairing {
  std::string_view peft, transformers;
};

// What the releases were run with (oracles/peft.md), newest first.
constexpr std::array<Pairing, 3> kPairings = {{{"0.20", "5.24"}, {"0.19.0", "5.5"}, {"", "4.57"}}};

std::string paired_with(const EngineVersion& peft) {
  for (const Pairing& row : kPairings)
    if (row.peft.empty() || peft.has(engines::peft.release(row.peft)))
      return std::string(row.transformers);
  return "";
}

void add(Modules& modules, Module module) {
  for (size_t dot = module.path.find('.'); dot != std::string::npos;
       dot = module.path.find('.', dot + 1))
    modules.containers.insert(module.path.substr(0, dot));
  modules.by_path.emplace(module.path, modules.all.size());
  modules.all.push_back(std::move(module));
}

bool is_linear_here(const LinearSpec& linear, const Host& host) {
  if (host.form() == Form::hub) return linear.hub_linear;
  const std::string& since = host.spec.peft.router_since;
  if (linear.role == Role::router && !since.empty()) return !host.has_transformers(since);
  return linear.memory_linear;
}

Module linear_module(const LinearSpec& linear, const Host& host) {
  const Form form = host.form();
  Module out;
  out.path = form == Form::hub ? linear.hub : linear.memory;
  out.in = linear.in;
  out.out = linear.out;
  if (linear.role == Role::embedding)
    out.kind = Module::Kind::embedding;
  else if (is_linear_here(linear, host))
    out.kind = Module::Kind::linear;
  const bool embedding = out.kind == Module::Kind::embedding;
  out.parameters.emplace_back(
      "weight", embedding ? Shape{linear.in, linear.out} : Shape{linear.out, linear.in});
  if (linear.bias) out.parameters.emplace_back("bias", Shape{linear.out});
  return out;
}

void add_numbered(Modules& modules, const ModelSpec& spec, const std::string& stem) {
  for (int64_t e = 0; e < spec.experts; ++e)
    for (const StoredProjection& stored : stored_projections(per_expert_storage(spec))) {
      Module out;
      out.path = fmt::format("{}.{}.{}", stem, e, stored.name);
      out.kind = Module::Kind::linear;
      out.in = spec.in_dim(stored.projection);
      out.out = spec.out_dim(stored.projection);
      out.parameters.emplace_back("weight", Shape{out.out, out.in});
      add(modules, std::move(out));
    }
}

// The parameter's name may go deeper: "input_linear.weight".
Module& holder_of(std::vector<Module>& holders, const std::string& stem, std::string& name) {
  const size_t dot = name.rfind('.');
  const std::string path = dot == std::string::npos ? stem : stem + "." + name.substr(0, dot);
  if (dot != std::string::npos) name = name.substr(dot + 1);
  for (Module& module : holders)
    if (module.path == path) return module;
  holders.push_back({.path = path});
  return holders.back();
}

void add_batched(Modules& modules, const ModelSpec& spec, const ExpertStorage& storage,
                 const std::string& stem) {
  std::vector<Module> holders;
  for (const StoredProjection& stored : stored_projections(storage)) {
    std::string name = stored.name;
    Module& holder = holder_of(holders, stem, name);
    holder.parameters.emplace_back(name, spec.parameter_shape(storage, stored.projection));
    if (spec.expert_bias)
      holder.parameters.emplace_back(name + "_bias",
                                     Shape{spec.experts, spec.out_dim(stored.projection)});
  }
  for (Module& holder : holders) add(modules, std::move(holder));
}

void add_experts(Modules& modules, const Host& host, int layer) {
  const ModelSpec& spec = host.spec;
  const Form form = host.form();
  const std::string stem = spec.expert_stem(form, layer);
  if (host.has_numbered_experts())
    add_numbered(modules, spec, stem);
  else
    add_batched(modules, spec, spec.storage(form), stem);
}

bool stands_behind_experts(Role role) {
  return role == Role::router || role == Role::shared_expert || role == Role::shared_expert_gate;
}

}  // namespace

bool Host::has(std::string_view release) const { return peft.has(engines::peft.release(release)); }

bool Host::has_transformers(std::string_view release) const {
  return compare_versions(transformers, release) >= 0;
}

Form Host::form() const {
  const std::string& since = spec.peft.batched_since;
  const bool batched = has_transformers("5") && (since.empty() || has_transformers(since));
  return batched && !spec.peft.numbered ? Form::memory : Form::hub;
}

bool Host::has_numbered_experts() const { return spec.storage(form()).numbered; }

bool Host::rewrites_targets() const { return rewrites_names() && spec.peft.converts; }

bool Host::rewrites_names() const {
  return has("0.19.0") && has_transformers("5") && spec.peft.maps;
}

bool Host::reads_in_out() const {
  return !has("0.19.0") || has("0.19.1") == spec.peft.is_transposed;
}

Host host_of(const ModelSpec& spec, const EngineVersion& peft, const ServerOptions& options) {
  std::string transformers = options.text("transformers");
  if (transformers.empty()) transformers = paired_with(peft);
  const auto parsed = EngineVersion::parse(transformers);
  if (!parsed || parsed->is_date())
    throw Error(at_option(Option::server_option, "transformers=" + transformers),
                "is not a release of transformers", "for example transformers=5.24");
  return {spec, peft, transformers};
}

std::string assumed_transformers(const Host& host, const ServerOptions& options) {
  const ModelSpec& spec = host.spec;
  if (!options.text("transformers").empty() || !host.has_numbered_experts()) return "";
  if (host.has_transformers("5") || spec.memory.numbered || spec.peft.numbered) return "";
  return fmt::format(
      "PEFT {} is taken to stand beside transformers {}, which holds a Linear for each expert; "
      "transformers 5 does not, and loses what names one without a word (--server-option "
      "transformers=5.5 is for that)",
      host.peft.text(), host.transformers);
}

const Module* Modules::find(std::string_view path) const {
  const auto at = by_path.find(path);
  return at == by_path.end() ? nullptr : &all[at->second];
}

Modules modules_of(const Host& host) {
  Modules out;
  const std::vector<LinearSpec>& linears = host.spec.linears;
  std::vector<bool> placed(static_cast<size_t>(host.spec.layers));
  const auto place_experts = [&](int layer) {
    if (!host.spec.is_moe(layer) || placed[static_cast<size_t>(layer)]) return;
    placed[static_cast<size_t>(layer)] = true;
    add_experts(out, host, layer);
  };
  for (size_t i = 0; i < linears.size(); ++i) {
    const int layer = linears[i].layer;
    if (stands_behind_experts(linears[i].role)) place_experts(layer);
    if (linears[i].is_in(host.form())) add(out, linear_module(linears[i], host));
    if (i + 1 == linears.size() || linears[i + 1].layer != layer) place_experts(layer);
  }
  return out;
}

}  // namespace moelora::peft
