create table t(id integer primary key, name text, value real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 4000)
insert into t select i, 'name' || (i * 7919 % 1000), (i * 104729 % 10007) / 4.0 from n;
create index by_name on t(name);
select count(*), sum(value), max(name) from t;
select name, count(*) c, total(value) from t group by name order by c desc, name limit 5;
select a.id, b.id from t a join t b on a.name = b.name and a.id < b.id order by a.id, b.id limit 5;
update t set value = value * 1.5 where id % 3 = 0;
delete from t where name like 'name1%';
select count(*), sum(value) from t where substr(name, 5) * 3 % 7 < 4;
select t.name, length(group_concat(u.id)) from t join t u using (name) group by t.name order by 2 desc, 1 limit 3;
