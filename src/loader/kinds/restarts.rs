//! `restartPolicy` and `restartPolicyRules` of a container.

use k8s_openapi::api::core::v1 as core;

use super::super::node::At;
use super::super::report::Report;
use super::pod::choice;
use crate::model::plan::{ExitCodes, RestartAction, RestartPolicy, RestartRule, Restarts};

/// The API server takes as many.
const MOST_RULES: usize = 20;
const MOST_CODES: usize = 255;

/// Reads them; faults are in the report.
pub(super) fn convert(container: &core::Container, at: At<'_>, report: &Report) -> Restarts {
    let policies = [
        ("Always", RestartPolicy::Always),
        ("OnFailure", RestartPolicy::OnFailure),
        ("Never", RestartPolicy::Never),
    ];
    let written = container.restart_policy.as_deref();
    let policy = written.and_then(|text| {
        let place = at.field("restartPolicy");
        choice(text, &policies, "restartPolicy", place, report)
    });
    let rules = container.restart_policy_rules.as_deref();
    let rules = rules.unwrap_or_default();
    let place = at.key("restartPolicyRules");
    if !rules.is_empty() && written.is_none() {
        let message = "`restartPolicyRules` needs a `restartPolicy` of the same container";
        let hint = "it says what happens when no rule matches";
        report.error_hint(place, message, hint);
    }
    if rules.len() > MOST_RULES {
        let message = format!(
            "`restartPolicyRules` may have {MOST_RULES} rules, has {}",
            rules.len()
        );
        report.error(place, message);
    }
    let all = rules.iter().enumerate();
    let rules = all.filter_map(|(index, one)| rule(one, place.index(index), report));
    Restarts {
        policy,
        rules: rules.collect(),
    }
}

fn rule(rule: &core::ContainerRestartRule, at: At<'_>, report: &Report) -> Option<RestartRule> {
    let actions = [
        ("Restart", RestartAction::Restart),
        ("RestartAllContainers", RestartAction::RestartAllContainers),
    ];
    let action = choice(&rule.action, &actions, "action", at.field("action"), report);
    let Some(codes) = &rule.exit_codes else {
        report.error(at, "a rule must have `exitCodes`");
        return None;
    };
    let place = at.field("exitCodes");
    let values = codes.values.clone().unwrap_or_default();
    if values.len() > MOST_CODES {
        let message = format!("`values` may have {MOST_CODES} codes, has {}", values.len());
        report.error(place.field("values"), message);
    }
    let operators = [
        ("In", ExitCodes::In as fn(Vec<i32>) -> ExitCodes),
        ("NotIn", ExitCodes::NotIn),
    ];
    let operator = place.field("operator");
    let codes = choice(&codes.operator, &operators, "operator", operator, report)?;
    Some(RestartRule {
        action: action?,
        codes: codes(values),
    })
}
