#include "lib/base/regex/path_pattern.h"

#include <fmt/core.h>

#include <algorithm>
#include <mutex>
#include <numeric>

#include "lib/base/error.h"
#include "lib/base/regex/python_syntax.h"

namespace moelora {
namespace {

constexpr size_t kMostOthers = 1000;           // each is tried on every path
constexpr int64_t kStepsOfCompilation = 1000;  // about its time
constexpr int64_t kStepsOfProbe = 32, kStepsOfDots = 4;

bool is_plain(std::string_view key) {
  return key.find_first_of("\\*+?()[]{}|^$") == std::string_view::npos;
}

std::vector<size_t> dots_of(std::string_view key) {
  std::vector<size_t> out;
  for (size_t i = 0; i < key.size(); ++i)
    if (key[i] == '.') out.push_back(i);
  return out;
}

std::string whole(const std::string& key) { return "(.*\\.)?(" + key + ")$"; }

// Of a translated expression, what stands for KEY where whole() is regular: the automaton knows by
// itself where components begin and a path ends. What is no expression of its own ("a)|(b") the
// automaton refuses.
std::optional<std::string_view> key_of(std::string_view translated) {
  static const std::string around = to_pcre(whole("")).text;
  const std::string_view end = ")$", begin = std::string_view(around).substr(0, around.size() - 2);
  if (!translated.starts_with(begin) || !translated.ends_with(end)) return std::nullopt;
  return translated.substr(begin.size(), translated.size() - begin.size() - end.size());
}

bool begins_component(std::string_view path, size_t at) { return at == 0 || path[at - 1] == '.'; }

}  // namespace

// What matching remembers.
struct PathPatterns::Work {
  std::recursive_mutex lock;
  RegexSteps steps;
  RegexAutomaton regular;
  std::map<size_t, PythonRegex> compiled;
  std::unordered_map<std::string, std::optional<size_t>> answers;  // where `others_` are asked
};

PathPatterns::PathPatterns() = default;
PathPatterns::PathPatterns(RegexSteps steps) : steps_(steps) {}
PathPatterns::PathPatterns(const PathPatterns&) = default;
PathPatterns::PathPatterns(PathPatterns&&) noexcept = default;
PathPatterns& PathPatterns::operator=(const PathPatterns&) = default;
PathPatterns& PathPatterns::operator=(PathPatterns&&) noexcept = default;
PathPatterns::~PathPatterns() = default;

void PathPatterns::add(std::string key) {
  const size_t index = keys_.size();
  keys_.push_back(std::move(key));
  kinds_.push_back(Kind::plain);
  if (work_.use_count() != 1) {  // none yet, or a copy's
    work_ = std::make_shared<Work>();
    work_->steps = steps_;
    others_.clear();
    for (size_t i = 0; i < index; ++i)
      if (kinds_[i] != Kind::plain) add_expression(i);
  }
  work_->answers.clear();
  const std::string& text = keys_.back();
  if (!is_plain(text)) return add_expression(index);
  Dots dots = dots_of(text);
  if (plain_.emplace(text, index).second) dots_[text.size()].insert(std::move(dots));
}

void PathPatterns::add_expression(size_t index) {
  kinds_[index] = Kind::other;
  try {
    const PcreText translated = to_pcre(whole(keys_[index]));
    const auto key = key_of(translated.text);
    if (key && work_->regular.add(*key, static_cast<uint32_t>(index)))
      kinds_[index] = Kind::regular;
  } catch (const Error&) {  // said when it is asked for
  }
  if (kinds_[index] == Kind::other) others_.push_back(index);
}

void PathPatterns::refuse_steps(size_t index) const {
  throw Error(keys_[index],
              fmt::format("is not evaluated: the keys beside it take more than {} steps on these "
                          "modules",
                          work_->steps.most),
              "write keys without regex syntax, or fewer expressions");
}

void PathPatterns::take(int64_t steps, size_t index) const {
  if (!work_->steps.take(steps)) refuse_steps(index);
}

const PythonRegex& PathPatterns::compiled(size_t index) const {
  if (const auto known = work_->compiled.find(index); known != work_->compiled.end())
    return known->second;
  take(kStepsOfCompilation, index);
  PythonRegex out(whole(keys_[index]));
  take(out.bytes(), index);
  return work_->compiled.emplace(index, std::move(out)).first->second;
}

// By the expression itself. Throws Error at the key.
bool PathPatterns::matches(size_t index, std::string_view path) const {
  if (others_.size() > kMostOthers && index >= others_[kMostOthers] && kinds_[index] == Kind::other)
    throw Error(keys_[index],
                fmt::format("stands behind {} other expressions with look-around, references or "
                            "faults, more than are evaluated",
                            kMostOthers),
                "write keys without regex syntax, or fewer expressions");
  try {
    return compiled(index).match(path, work_->steps);
  } catch (const Error& error) {
    throw Error(keys_[index], error.text(), error.advice());
  }
}

// Calls found() with the plain keys that name `path`, of equal ones the first. Where the path has a
// dot, so must the key.
template <class F>
void PathPatterns::each_plain(std::string_view path, F&& found) const {
  std::string key;
  for (size_t begin = 0; begin != std::string_view::npos;) {
    const std::string_view end = path.substr(begin);
    if (const auto known = dots_.find(end.size()); known != dots_.end()) {
      take(static_cast<int64_t>(end.size() / 8), 0);
      const auto is_dot = [&](size_t at) { return end[at] == '.'; };
      const auto count = std::count(end.begin(), end.end(), '.');
      for (const Dots& dots : known->second) {
        take(kStepsOfDots, 0);
        if (std::count_if(dots.begin(), dots.end(), is_dot) != count) continue;
        take(kStepsOfProbe + static_cast<int64_t>(end.size() / 8), 0);
        key = end;
        for (const size_t dot : dots) key[dot] = '.';
        if (const auto at = plain_.find(key); at != plain_.end()) found(at->second);
      }
    }
    const size_t dot = path.find('.', begin);
    begin = dot == std::string_view::npos ? dot : dot + 1;
  }
}

std::optional<size_t> PathPatterns::first_plain(std::string_view path) const {
  std::optional<size_t> first;
  each_plain(path, [&](size_t index) { first = std::min(index, first.value_or(index)); });
  return first;
}

size_t PathPatterns::first_regular_key() const {
  return static_cast<size_t>(std::find(kinds_.begin(), kinds_.end(), Kind::regular) -
                             kinds_.begin());
}

std::optional<size_t> PathPatterns::first_regular(std::string_view path) const {
  std::optional<size_t> first;
  const bool is_whole = work_->regular.scan(path, work_->steps, [&](uint32_t state, size_t at) {
    if (!begins_component(path, at)) return;
    const size_t index = work_->regular.first(state, at == 0);
    first = std::min(index, first.value_or(index));
  });
  if (!is_whole) refuse_steps(first_regular_key());
  return first;
}

std::optional<size_t> PathPatterns::first_of_all(std::string_view path) const {
  if (!is_plain_path(path)) {
    for (size_t i = 0; i < size(); ++i)
      if (matches(i, path)) return i;
    return std::nullopt;
  }
  std::optional<size_t> first = first_plain(path);
  if (const auto regular = first_regular(path))
    first = std::min(*regular, first.value_or(*regular));
  for (const size_t index : others_) {
    if (first && *first < index) break;
    if (matches(index, path)) return index;
  }
  return first;
}

std::optional<size_t> PathPatterns::first_match(std::string_view path) const {
  if (keys_.empty()) return std::nullopt;
  const std::scoped_lock held(work_->lock);
  if (others_.empty()) return first_of_all(path);
  const auto known = work_->answers.find(std::string(path));
  if (known != work_->answers.end()) return known->second;
  return work_->answers.emplace(path, first_of_all(path)).first->second;
}

// What one key comes to on one path more.
void PathPatterns::use(size_t index, std::string_view path, Use& out) const {
  try {
    out.names = matches(index, path);
  } catch (const Error& error) {
    out.fault = error.text();
  }
}

std::vector<PathPatterns::Use> PathPatterns::uses(std::span<const std::string> paths) const {
  std::vector<Use> out(size());
  if (keys_.empty()) return out;
  const std::scoped_lock held(work_->lock);
  RegexAutomaton& regular = work_->regular;
  regular.forget();
  std::vector<bool> named(size());
  // Of which nothing is known yet: what is asked on every path, and on those that are not plain.
  std::vector<size_t> others = others_, all(size());
  std::iota(all.begin(), all.end(), size_t{0});
  const auto is_known = [&](size_t i) { return out[i].names || !out[i].fault.empty(); };
  try {
    for (const std::string& path : paths) {
      const bool is_plain_one = is_plain_path(path);
      if (is_plain_one) {
        each_plain(path, [&](size_t index) { named[index] = true; });
        if (!regular.scan(path, work_->steps, [&](uint32_t state, size_t at) {
              if (begins_component(path, at)) regular.mark(state, at == 0, named);
            }))
          refuse_steps(first_regular_key());
      }
      std::vector<size_t>& open = is_plain_one ? others : all;
      std::erase_if(open, is_known);
      for (const size_t i : open) use(i, path, out[i]);
    }
  } catch (const Error& error) {  // out of steps
    for (Use& each : out)
      if (each.fault.empty()) each.fault = error.text();
  }
  for (size_t i = 0; i < size(); ++i)
    if (named[kinds_[i] == Kind::plain ? plain_.at(keys_[i]) : i]) out[i].names = true;
  return out;
}

}  // namespace moelora
