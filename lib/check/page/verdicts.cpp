#include "lib/check/page/verdicts.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "lib/base/page/markup.h"
#include "lib/check/report_parts.h"

namespace moelora {
namespace {

constexpr size_t kMostAdapters = 50;

// Of one adapter, or a deployment as a whole, for one engine ("" for rules of no engine).
struct Verdict {
  std::vector<const Finding*> findings;
  bool unjudged = false, served = false;
};

class Matrix {
 public:
  explicit Matrix(const Report& report) : report_(report) {
    for (const Finding& f : report.results.findings) {
      Verdict& verdict = verdicts_[{section_of(f), f.engine}];
      verdict.findings.push_back(&f);
      verdict.unjudged |= f.unjudged;
    }
    for (const Served& s : report.results.served)
      verdicts_[{Section{s.deployment, s.adapter}, s.engine}].served = true;
    for (const EngineRun& run : report.deployments.front().engines)
      if (engines_.insert(run.choice.label()).second) columns_.push_back(run.choice.label());
  }

  std::string markup() const {
    std::vector<Section> rows = sections(report_);
    const size_t all = rows.size();
    if (all > kMostAdapters) {
      std::stable_sort(rows.begin(), rows.end(),
                       [&](const Section& x, const Section& y) { return weight(x) > weight(y); });
      rows.resize(kMostAdapters);
    }
    std::string out = heading();
    for (const Section& row : rows) out += line(row);
    out = page::element("div", "scroll", page::element("table", "", "\n" + out)) + "\n";
    return out + page::and_more(all, rows.size(), "whose findings are at most as severe");
  }

 private:
  std::string heading() const {
    std::string cells =
        page::element("th", "", "adapter") + page::element("th", "prose", "whatever the server");
    for (const std::string& engine : columns_)
      cells += page::element("th", "prose", page::text(engine));
    return page::element("tr", "", cells) + "\n";
  }

  std::string line(const Section& at) const {
    std::string cells = page::element("td", "", page::code(adapter_title(report_, at)));
    cells += cell(at, "");
    for (const std::string& engine : columns_) cells += cell(at, engine);
    return page::element("tr", "", cells) + "\n";
  }

  std::string cell(const Section& at, const std::string& engine) const {
    const auto found = verdicts_.find({at, engine});
    const Verdict verdict = found == verdicts_.end() ? Verdict{} : found->second;
    const Counts counts = count_findings(verdict.findings);
    if (verdict.unjudged || not_planned(at, engine)) return marked("warn", "not checked", counts);
    if (counts.errors > 0) return marked("bad", "", counts);
    if (counts.warnings > 0) return marked("warn", "", counts);
    return marked("good", verdict.served ? "served whole" : "", counts);
  }

  // `words`, or where there are none the counts.
  static std::string marked(std::string_view css, std::string_view words, const Counts& counts) {
    const std::string text = words.empty() ? counts_text(counts)
                             : counts.all() == 0
                                 ? std::string(words)
                                 : fmt::format("{}; {}", words, counts_text(counts));
    return page::element("td", fmt::format("prose {}", css), page::text(text));
  }

  bool not_planned(const Section& at, const std::string& engine) const {
    for (const EngineRun& run : report_.deployments[at.deployment].engines)
      if (run.choice.label() == engine)
        return !run.not_planned.empty() || (run.plan && !run.plan->not_known.empty());
    return false;
  }

  std::tuple<int64_t, int64_t, int64_t> weight(const Section& at) const {
    Counts counts;
    for (auto it = verdicts_.lower_bound({at, ""}); it != verdicts_.end() && it->first.first == at;
         ++it) {
      const Counts some = count_findings(it->second.findings);
      counts.errors += some.errors;
      counts.warnings += some.warnings;
      counts.information += some.information;
    }
    return {counts.errors, counts.warnings, counts.information};
  }

  const Report& report_;
  std::map<std::pair<Section, std::string>, Verdict> verdicts_;
  std::set<std::string> engines_;
  std::vector<std::string> columns_;
};

}  // namespace

std::string verdict_matrix(const Report& report) { return Matrix(report).markup(); }

}  // namespace moelora
